"""At commit, each change of a table that people decide in has an audit entry of its transaction."""

from pathlib import Path

from django.db import migrations, models

RESOURCES = Path(__file__).resolve().parent.parent / "resources"


class Migration(migrations.Migration):
    dependencies = [
        ("control", "0005_looks"),
        ("decisions", "0002_outcomes"),
        ("rollouts", "0001_initial"),
        ("knox", "0009_extend_authtoken_field"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="auditentry",
            index=models.Index(
                condition=models.Q(("action", "access.denied")),
                fields=["actor_login", "at"],
                name="audit_denials",
            ),
        ),
        migrations.RunSQL(
            (RESOURCES / "audited.sql").read_text(encoding="ascii"),
            (RESOURCES / "unaudited.sql").read_text(encoding="ascii")
            + (RESOURCES / "append_entries.sql").read_text(encoding="ascii"),
        ),
    ]
