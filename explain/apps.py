from django.apps import AppConfig


class ExplainConfig(AppConfig):
    name = "explain"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from decisions import why
        from explain import tell

        if tell.short not in why.TELLERS:
            why.TELLERS.append(tell.short)
