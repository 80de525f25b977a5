"""Programs own nothing: what they may do in one way only they do through functions of the owner."""

from pathlib import Path

from django.db import migrations

RESOURCES = Path(__file__).resolve().parent.parent / "resources"


class Migration(migrations.Migration):
    dependencies = [("control", "0006_audited")]

    operations = [
        migrations.RunSQL(
            (RESOURCES / "confined.sql").read_text(encoding="ascii"),
            (RESOURCES / "unconfined.sql").read_text(encoding="ascii"),
        ),
    ]
