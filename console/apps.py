"""The console as a Django app: makes the roles after every migration, and notes each sign-in."""

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
