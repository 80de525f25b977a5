"""Explanations as a Django app: puts their table under retention."""

from __future__ import annotations

from django.apps import AppConfig


class ExplainConfig(AppConfig):
    name = "explain"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # here: models are there only when the apps are loaded
        from decisions.store import retention
        from explain.models import EXPLANATIONS

        retention.register(retention.Retained(EXPLANATIONS, retention.as_decisions))
