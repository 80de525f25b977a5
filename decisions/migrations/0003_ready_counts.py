"""Counts kept ready for facets and histograms, credentials by app and day, saved searches, and who
may export.
"""

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

# `minute` counts from 1970; `span` is how many minutes a row stands for, 0 as ingest appended it
# (decisions/counts/append.py).
COUNTS = """
CREATE TABLE {name} (
    minute integer NOT NULL, span smallint NOT NULL, key integer NOT NULL,
    kept integer NOT NULL, weight double precision NOT NULL, square double precision NOT NULL
);
CREATE INDEX {name}_minute ON {name} (minute);
"""
FORWARD = (
    COUNTS.format(name="decisions_facet")
    + COUNTS.format(name="decisions_appcount")
    + """
CREATE TABLE decisions_facetkey (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    action smallint NOT NULL, stage smallint NOT NULL, tier smallint NOT NULL, service text NOT NULL, method text NOT NULL,
    endpoint text NOT NULL, reason smallint NOT NULL, arm smallint NOT NULL,
    UNIQUE (action, stage, tier, service, method, endpoint, reason, arm)
);
CREATE TABLE decisions_appcountkey (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    app text NOT NULL, tier smallint NOT NULL, action smallint NOT NULL,
    UNIQUE (app, tier, action)
);
CREATE TABLE decisions_tokenday (digest uuid NOT NULL, day date NOT NULL, app text NOT NULL, PRIMARY KEY (digest, day, app));

-- what was stored before counts were kept
INSERT INTO decisions_facetkey (action, stage, tier, service, method, endpoint, reason, arm)
    SELECT DISTINCT action, stage, tier, service, method, endpoint, reason, arm FROM decisions_decision;
INSERT INTO decisions_facet
    SELECT floor(extract(epoch FROM d.at) / 60), 1, k.id, count(*), sum(1 / inclusion_probability),
        sum(1 / inclusion_probability / inclusion_probability)
    FROM decisions_decision d JOIN decisions_facetkey k USING (action, stage, tier, service, method, endpoint, reason, arm)
    GROUP BY 1, k.id;
INSERT INTO decisions_appcountkey (app, tier, action) SELECT DISTINCT app, tier, action FROM decisions_decision;
INSERT INTO decisions_appcount
    SELECT floor(extract(epoch FROM d.at) / 60), 1, k.id, count(*), sum(1 / inclusion_probability),
        sum(1 / inclusion_probability / inclusion_probability)
    FROM decisions_decision d JOIN decisions_appcountkey k USING (app, tier, action) GROUP BY 1, k.id;
INSERT INTO decisions_tokenday
    SELECT DISTINCT token_digest::uuid, (at AT TIME ZONE 'UTC')::date, app FROM decisions_decision
    WHERE token_digest ~ '^[0-9a-f]{32}$';
"""
)
BACKWARD = """
DROP TABLE decisions_facet, decisions_facetkey, decisions_appcount, decisions_appcountkey, decisions_tokenday;
"""


class Migration(migrations.Migration):
    dependencies = [("decisions", "0002_outcomes"), migrations.swappable_dependency(settings.AUTH_USER_MODEL)]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL(FORWARD, BACKWARD)],
            state_operations=[
                migrations.CreateModel(
                    name='AppCount',
                    fields=[
                        ('pk', models.CompositePrimaryKey('minute', 'span', 'key', blank=True, editable=False, primary_key=True, serialize=False)),
                        ('minute', models.IntegerField()),
                        ('span', models.SmallIntegerField()),
                        ('key', models.IntegerField()),
                        ('kept', models.IntegerField()),
                        ('weight', models.FloatField()),
                        ('square', models.FloatField()),
                    ],
                    options={
                        'db_table': 'decisions_appcount',
                        'abstract': False,
                        'default_permissions': (),
                    },
                ),
                migrations.CreateModel(
                    name='AppCountKey',
                    fields=[
                        ('id', models.IntegerField(primary_key=True, serialize=False)),
                        ('app', models.TextField()),
                        ('tier', models.SmallIntegerField()),
                        ('action', models.SmallIntegerField()),
                    ],
                    options={
                        'db_table': 'decisions_appcountkey',
                        'default_permissions': (),
                    },
                ),
                migrations.CreateModel(
                    name='FacetCount',
                    fields=[
                        ('pk', models.CompositePrimaryKey('minute', 'span', 'key', blank=True, editable=False, primary_key=True, serialize=False)),
                        ('minute', models.IntegerField()),
                        ('span', models.SmallIntegerField()),
                        ('key', models.IntegerField()),
                        ('kept', models.IntegerField()),
                        ('weight', models.FloatField()),
                        ('square', models.FloatField()),
                    ],
                    options={
                        'db_table': 'decisions_facet',
                        'abstract': False,
                        'default_permissions': (),
                    },
                ),
                migrations.CreateModel(
                    name='FacetKey',
                    fields=[
                        ('id', models.IntegerField(primary_key=True, serialize=False)),
                        ('action', models.SmallIntegerField()),
                        ('stage', models.SmallIntegerField()),
                        ('tier', models.SmallIntegerField()),
                        ('service', models.TextField()),
                        ('method', models.TextField()),
                        ('endpoint', models.TextField()),
                        ('reason', models.SmallIntegerField()),
                        ('arm', models.SmallIntegerField()),
                    ],
                    options={
                        'db_table': 'decisions_facetkey',
                        'default_permissions': (),
                    },
                ),
                migrations.CreateModel(
                    name='TokenDay',
                    fields=[
                        ('pk', models.CompositePrimaryKey('digest', 'day', 'app', blank=True, editable=False, primary_key=True, serialize=False)),
                        ('digest', models.UUIDField()),
                        ('day', models.DateField()),
                        ('app', models.TextField()),
                    ],
                    options={
                        'db_table': 'decisions_tokenday',
                        'default_permissions': (),
                    },
                ),
            ],
        ),
        migrations.AlterModelOptions(
            name="decision",
            options={
                "default_permissions": ("view",),
                "permissions": [
                    ("view_token_digest", "Can see the keyed digest of the credential a request carried"),
                    ("view_decision_export", "Can export decisions as CSV"),
                ],
            },
        ),
        migrations.CreateModel(
            name="SavedSearch",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=60)),
                ("query", models.CharField(max_length=2000)),
                ("shared", models.BooleanField(default=False)),
                ("saved_at", models.DateTimeField(default=django.utils.timezone.now)),
                (
                    "owner",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="saved_searches", to=settings.AUTH_USER_MODEL
                    ),
                ),
            ],
            options={
                "ordering": ["name", "id"],
                "default_permissions": (),
                "constraints": [models.UniqueConstraint(fields=("owner", "name"), name="one_saved_search_per_name")],
            },
        ),
    ]
