"""What an installation is told apart from its config document: its gateways, how long it keeps."""

from __future__ import annotations

from django.conf import settings

from control.models import Installation


def told() -> Installation:
    """Return what is stored, or what holds before anything is."""
    return Installation.objects.filter(pk=1).first() or Installation()


def keep_days() -> int:
    """Return how many days decisions are kept: as a file declares, else as the settings say."""
    return told().keep_days or int(settings.SLUICE_KEEP_DAYS)
