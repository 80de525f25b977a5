from django.apps import AppConfig, apps
from django.db.models.signals import post_migrate


class ConsoleConfig(AppConfig):
    name = "console"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from console.frame import roles

        *_, last = apps.get_app_configs()  # by then every app's permissions exist
        post_migrate.connect(roles.ensure_after_migrate, sender=last, dispatch_uid="console.roles")
