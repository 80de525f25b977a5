"""The console as a Django app: after every migration it makes the roles of people, and gives the
roles of the database what they may do. It notes each sign-in.
"""

from __future__ import annotations

from django.apps import AppConfig, apps
from django.contrib.auth.signals import user_logged_in
from django.db.models.signals import post_migrate


class ConsoleConfig(AppConfig):
    name = "console"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from console.frame import roles, sessions

        # connected to the last app: at its signal, the permissions of every app exist
        *_, last = apps.get_app_configs()
        post_migrate.connect(roles.ensure_after_migrate, sender=last, dispatch_uid="console.roles")
        user_logged_in.connect(sessions.note_proof, dispatch_uid="console.proof")
        post_migrate.connect(_give_grants, sender=last, dispatch_uid="console.database_roles")


def _give_grants(using: str, **_: object) -> None:
    from django.db import connections, transaction

    from console.local.postgres import grants

    with transaction.atomic(using=using), connections[using].cursor() as cursor:
        grants.apply(cursor)
