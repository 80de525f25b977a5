"""Counts kept ready in blocks of several lengths beside each other (decisions/counts/rollup.py).
They are made anew from the rows.
"""

from django.db import migrations, models

COUNTS = """
DROP INDEX {name}_{before};
DELETE FROM {name};
INSERT INTO {name}
    SELECT floor(extract(epoch FROM d.at) / 60), 0, k.id, count(*), sum(1 / inclusion_probability),
        sum(1 / inclusion_probability / inclusion_probability)
    FROM decisions_decision d JOIN {name}key k USING ({fields}) GROUP BY 1, k.id;
CREATE INDEX {name}_{after} ON {name} ({columns});
"""
FACETS = {"name": "decisions_facet", "fields": "action, stage, tier, service, method, endpoint, reason, arm"}
APPS = {"name": "decisions_appcount", "fields": "app, tier, action"}
LEVELS = {"before": "minute", "after": "span_minute", "columns": "span, minute"}
MOVED = {"before": "span_minute", "after": "minute", "columns": "minute"}
FORWARD = "".join(COUNTS.format(**family, **LEVELS) for family in (FACETS, APPS))
BACKWARD = "".join(COUNTS.format(**family, **MOVED) for family in (FACETS, APPS))


class Migration(migrations.Migration):
    dependencies = [("decisions", "0003_ready_counts")]

    operations = [
        migrations.CreateModel(
            name="CountLevel",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey("counts", "span", blank=True, editable=False, primary_key=True, serialize=False),
                ),
                ("counts", models.TextField()),
                ("span", models.SmallIntegerField()),
                ("minute", models.IntegerField()),
            ],
            options={"db_table": "decisions_countlevel", "default_permissions": ()},
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
