"""The decision table, partitioned by day; Django's state is told about it, PostgreSQL gets the SQL
below.
"""

import django.db.models.functions
from django.db import migrations, models

# Fixed-width columns lead, so that rows carry no alignment padding and ingest packs them in one go.
# There is only one constraint, because each one costs every copied row a call. There is no index on
# `at`: ids are UUIDv7, so the primary key is in time order within a day.
FORWARD = """
CREATE TABLE decisions_decision (
    id uuid NOT NULL,
    at timestamptz NOT NULL,
    tier smallint NOT NULL,
    action smallint NOT NULL,
    observed boolean NOT NULL,
    stage smallint NOT NULL,
    reason smallint NOT NULL,
    retry_after double precision NOT NULL,
    arm smallint NOT NULL,
    ml_state smallint NOT NULL,
    config_version bigint NOT NULL,
    inclusion_probability double precision NOT NULL,
    latency_us double precision NOT NULL,
    payload_bytes bigint NOT NULL,
    risk double precision,
    value double precision,
    raw_risk double precision,
    raw_value double precision,
    request_id text NOT NULL,
    region text NOT NULL,
    node text NOT NULL,
    app text NOT NULL,
    tenant text NOT NULL,
    token_digest text NOT NULL,
    method text NOT NULL,
    endpoint text NOT NULL,
    service text NOT NULL,
    model text NOT NULL,
    feature_schema text NOT NULL,
    features bytea NOT NULL,
    signals bytea NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (id, at),
    CONSTRAINT decisions_decision_in_range CHECK (
        tier BETWEEN 0 AND 3 AND action BETWEEN 0 AND 4 AND stage BETWEEN 0 AND 5 AND ml_state >= 0
        AND inclusion_probability > 0 AND inclusion_probability <= 1 AND risk BETWEEN 0 AND 1 AND value BETWEEN 0 AND 1
    )
) PARTITION BY RANGE (at);

CREATE INDEX decisions_decision_app ON decisions_decision (app, id);
CREATE INDEX decisions_decision_request ON decisions_decision (request_id) WHERE request_id <> '';

CREATE TABLE decisions_decision_default PARTITION OF decisions_decision DEFAULT;
"""


class Migration(migrations.Migration):
    initial = True
    dependencies = []

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL(FORWARD, "DROP TABLE decisions_decision")],
            state_operations=[
                migrations.CreateModel(
                    name="Decision",
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
                    options={
                        "db_table": "decisions_decision",
                        "default_permissions": ("view",),
                        "permissions": [("view_token_digest", "Can see the keyed digest of the credential a request carried")],
                    },
                ),
            ],
        ),
        migrations.CreateModel(
            name="IngestedBatch",
            fields=[
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                ("node", models.TextField()),
                ("rows", models.IntegerField()),
                ("dropped", models.BigIntegerField()),
                ("sent_at", models.DateTimeField()),
                ("stored_at", models.DateTimeField(db_default=django.db.models.functions.Now(), db_index=True)),
            ],
            options={"default_permissions": ("view",)},
        ),
    ]
