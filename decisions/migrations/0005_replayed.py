"""A table of its own for what replays of logs decided, so that no figure of live traffic counts it.

The rows that replays stored before move there. The counts kept ready cannot be told apart, so the
replays of before stay in them until they are dropped with their days.
"""

import django.db.models.functions
from django.db import migrations, models

# Columns in the order of decisions_decision, with its checks, defaults and indexes.
FORWARD = """
CREATE TABLE decisions_replayed (LIKE decisions_decision INCLUDING ALL) PARTITION BY RANGE (at);
CREATE TABLE decisions_replayed_default PARTITION OF decisions_replayed DEFAULT;
WITH moved AS (DELETE FROM decisions_decision WHERE node = 'replay' RETURNING *)
    INSERT INTO decisions_replayed SELECT * FROM moved;
"""
BACKWARD = """
INSERT INTO decisions_decision SELECT * FROM decisions_replayed;
DROP TABLE decisions_replayed;
"""


class Migration(migrations.Migration):
    dependencies = [("decisions", "0004_count_levels")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL(FORWARD, BACKWARD)],
            state_operations=[
                migrations.CreateModel(
                    name="Replayed",
                    fields=[
                        ("pk", models.CompositePrimaryKey("id", "at", blank=True, editable=False, primary_key=True, serialize=False)),
                        ("id", models.UUIDField()),
                        ("at", models.DateTimeField()),
                        ("request_id", models.TextField()),
                        ("region", models.TextField()),
                        ("node", models.TextField()),
                        ("app", models.TextField()),
                        ("tenant", models.TextField()),
                        ("tier", models.SmallIntegerField()),
                        ("token_digest", models.TextField()),
                        ("method", models.TextField()),
                        ("endpoint", models.TextField()),
                        ("service", models.TextField()),
                        ("action", models.SmallIntegerField()),
                        ("observed", models.BooleanField()),
                        ("stage", models.SmallIntegerField()),
                        ("reason", models.SmallIntegerField()),
                        ("retry_after", models.FloatField()),
                        ("risk", models.FloatField(null=True)),
                        ("value", models.FloatField(null=True)),
                        ("raw_risk", models.FloatField(null=True)),
                        ("raw_value", models.FloatField(null=True)),
                        ("model", models.TextField()),
                        ("arm", models.SmallIntegerField()),
                        ("ml_state", models.SmallIntegerField()),
                        ("config_version", models.BigIntegerField()),
                        ("feature_schema", models.TextField()),
                        ("features", models.BinaryField()),
                        ("signals", models.BinaryField()),
                        ("inclusion_probability", models.FloatField()),
                        ("latency_us", models.FloatField()),
                        ("payload_bytes", models.BigIntegerField()),
                        ("stored_at", models.DateTimeField(db_default=django.db.models.functions.Now())),
                    ],
                    options={"db_table": "decisions_replayed", "default_permissions": ()},
                ),
            ],
        ),
    ]
