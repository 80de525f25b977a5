"""What a file declares that no config document holds, and the files that were applied."""

from pathlib import Path

import django.db.models.deletion
from django.db import migrations, models
from django.db.models import Q

RESOURCES = Path(__file__).resolve().parent.parent / "resources"


class Migration(migrations.Migration):
    dependencies = [("control", "0006_audited")]

    operations = [
        migrations.CreateModel(
            name="Installation",
            fields=[
                ("id", models.PositiveSmallIntegerField(default=1, primary_key=True, serialize=False)),
                ("gateways", models.JSONField(default=dict)),
                ("keep_days", models.PositiveIntegerField(blank=True, null=True)),
            ],
            options={
                "default_permissions": (),
                "constraints": [
                    models.CheckConstraint(condition=Q(id=1), name="one_installation"),
                    models.CheckConstraint(
                        condition=Q(keep_days=None) | Q(keep_days__gte=1), name="installation_keeps_a_day"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="AppliedFile",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("text", models.TextField()),
                ("digest", models.CharField(max_length=64)),
                ("owned", models.JSONField()),
                ("at", models.DateTimeField()),
                ("by", models.CharField(max_length=200)),
                ("reason", models.CharField(max_length=1000)),
                (
                    "config_version",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="control.configversion",
                    ),
                ),
            ],
            options={
                "ordering": ["-pk"],
                "default_permissions": (),
                "permissions": [
                    ("view_declaration", "May see what the installation is declared to be"),
                    ("apply_declaration", "May apply a file that declares the installation"),
                ],
            },
        ),
        migrations.RunSQL(
            (RESOURCES / "declared.sql").read_text(encoding="ascii"),
            (RESOURCES / "undeclared.sql").read_text(encoding="ascii"),
        ),
    ]
