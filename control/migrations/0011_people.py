"""Grants of roles are kept, and people and roles change only with an entry in the audit log."""

from pathlib import Path

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models
from django.db.models import F, Q

RESOURCES = Path(__file__).resolve().parent.parent / "resources"


class Migration(migrations.Migration):
    dependencies = [
        ("control", "0010_four_eyes"),
        ("auth", "0012_alter_user_first_name_max_length"),
    ]

    operations = [
        migrations.CreateModel(
            name="Grant",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("role", models.CharField(max_length=64)),
                ("by", models.CharField(max_length=200)),
                ("by_login", models.CharField(blank=True, max_length=200)),
                ("at", models.DateTimeField()),
                ("reason", models.CharField(max_length=1000)),
                ("taken_at", models.DateTimeField(blank=True, null=True)),
                ("taken_by", models.CharField(blank=True, max_length=200)),
                ("taken_login", models.CharField(blank=True, max_length=200)),
                (
                    "granted_by",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "person",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="grants",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "ordering": ["-at", "-pk"],
                "permissions": [
                    ("manage_people", "May make people and give roles"),
                    ("view_people", "May see who has which role"),
                    ("review_access", "May record a review of everyone's roles"),
                ],
                "default_permissions": (),
                "indexes": [models.Index(fields=["granted_by", "person", "at"], name="grants_by_whom")],
                "constraints": [
                    models.UniqueConstraint(
                        condition=Q(("taken_at", None)), fields=("person", "role"), name="one_open_grant"
                    ),
                    models.CheckConstraint(
                        condition=Q(("taken_at", None), ("taken_at__gte", F("at")), _connector="OR"),
                        name="grant_ends_after_it",
                    ),
                ],
            },
        ),
        migrations.RunSQL(
            (RESOURCES / "held_before.sql").read_text(encoding="ascii"), migrations.RunSQL.noop
        ),
        migrations.RunSQL(
            (RESOURCES / "people.sql").read_text(encoding="ascii"),
            (RESOURCES / "unpeople.sql").read_text(encoding="ascii"),
        ),
    ]
