"""Programs own nothing: what they may do in one way only they do through functions of the owner.
And how anchoring the audit log went.
"""

from pathlib import Path

from django.db import migrations, models

RESOURCES = Path(__file__).resolve().parent.parent / "resources"


class Migration(migrations.Migration):
    # after what has a later number: installations have that one already
    dependencies = [("control", "0008_app_imports")]

    operations = [
        migrations.CreateModel(
            name="AnchorReport",
            fields=[
                ("id", models.PositiveSmallIntegerField(default=1, primary_key=True, serialize=False)),
                ("anchored_at", models.DateTimeField(null=True)),
                ("sent", models.PositiveIntegerField(default=0)),
                ("waiting", models.PositiveIntegerField(default=0)),
                ("failing_since", models.DateTimeField(null=True)),
                ("why", models.CharField(blank=True, max_length=300)),
            ],
            options={
                "default_permissions": (),
                "constraints": [
                    models.CheckConstraint(condition=models.Q(("id", 1)), name="one_anchor_report")
                ],
            },
        ),
        migrations.RunSQL(
            (RESOURCES / "confined.sql").read_text(encoding="ascii"),
            (RESOURCES / "unconfined.sql").read_text(encoding="ascii"),
        ),
    ]
