"""Entries of the audit log are numbered, hashed and inserted by one function of the database."""

from pathlib import Path

from django.db import migrations

RESOURCES = Path(__file__).resolve().parent.parent / "resources"


class Migration(migrations.Migration):
    dependencies = [("control", "0003_found_wrong")]

    operations = [
        migrations.RunSQL(
            (RESOURCES / "append_entries.sql").read_text(encoding="ascii"),
            (RESOURCES / "unappend_entries.sql").read_text(encoding="ascii"),
        ),
    ]
