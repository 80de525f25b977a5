"""Explanations, partitioned by day like the decisions they belong to; and the checks of models."""

import django.db.models.functions
from django.db import migrations, models

FORWARD = """
CREATE TABLE explain_explanation (
    decision uuid NOT NULL,
    at timestamptz NOT NULL,
    base double precision NOT NULL,
    raw double precision NOT NULL,
    sum_error double precision NOT NULL,
    mismatch boolean NOT NULL,
    model text NOT NULL,
    contributions bytea NOT NULL,
    computed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (decision, at)
) PARTITION BY RANGE (at);

CREATE INDEX explain_explanation_mismatch ON explain_explanation (at) WHERE mismatch;

CREATE TABLE explain_explanation_default PARTITION OF explain_explanation DEFAULT;
"""


class Migration(migrations.Migration):
    initial = True
    dependencies = [("decisions", "0001_initial")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL(FORWARD, "DROP TABLE explain_explanation")],
            state_operations=[
                migrations.CreateModel(
                    name="Explanation",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey("decision", "at", blank=True, editable=False, primary_key=True, serialize=False),
                        ),
                        ("decision", models.UUIDField()),
                        ("at", models.DateTimeField()),
                        ("model", models.TextField()),
                        ("base", models.FloatField()),
                        ("contributions", models.BinaryField()),
                        ("raw", models.FloatField()),
                        ("sum_error", models.FloatField()),
                        ("mismatch", models.BooleanField()),
                        ("computed_at", models.DateTimeField(db_default=django.db.models.functions.Now())),
                    ],
                    options={"db_table": "explain_explanation", "default_permissions": ("view",)},
                ),
            ],
        ),
        migrations.CreateModel(
            name="ModelCheck",
            fields=[
                ("model", models.TextField(primary_key=True, serialize=False)),
                ("rows", models.IntegerField()),
                ("max_difference", models.FloatField()),
                ("max_sum_error", models.FloatField()),
                ("ok", models.BooleanField()),
                ("error", models.TextField(blank=True)),
                ("at", models.DateTimeField(db_default=django.db.models.functions.Now())),
            ],
            options={"default_permissions": ("view",)},
        ),
    ]
