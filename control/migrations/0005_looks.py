"""Looks at apps' data get a table and a chain of their own.

Looks of before stay in the audit log, whose chain would break without them, and are read from both.
"""

from pathlib import Path

from django.db import migrations, models

RESOURCES = Path(__file__).resolve().parent.parent / "resources"


class Migration(migrations.Migration):
    dependencies = [("control", "0004_append_last")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    (RESOURCES / "looks.sql").read_text(encoding="ascii"),
                    (RESOURCES / "unlooks.sql").read_text(encoding="ascii"),
                )
            ],
            state_operations=[
                migrations.CreateModel(
                    name="Look",
                    fields=[
                        ("pk", models.CompositePrimaryKey("at", "seq", blank=True, editable=False, primary_key=True, serialize=False)),
                        ("seq", models.BigIntegerField()),
                        ("at", models.DateTimeField()),
                        ("actor", models.CharField(max_length=200)),
                        ("actor_login", models.CharField(blank=True, max_length=200)),
                        ("actor_role", models.CharField(max_length=200)),
                        ("app", models.CharField(blank=True, max_length=128)),
                        ("what", models.CharField(max_length=120)),
                        ("ticket", models.CharField(blank=True, max_length=40)),
                        ("prev_hash", models.CharField(max_length=64)),
                        ("hash", models.CharField(max_length=64)),
                    ],
                    options={"db_table": "control_look", "ordering": ["-at", "-seq"], "default_permissions": ()},
                ),
                migrations.AddIndex(
                    model_name="look",
                    index=models.Index(fields=["app", "at"], name="looks_of_app"),
                ),
                migrations.AddIndex(
                    model_name="auditentry",
                    index=models.Index(
                        condition=models.Q(("action", "looks.checkpoint")), fields=["seq"], name="audit_checkpoints"
                    ),
                ),
            ],
        ),
    ]
