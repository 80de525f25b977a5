"""Background work of the console."""

from __future__ import annotations

from datetime import timedelta

import pytest
from axes.models import AccessFailureLog, AccessLog
from django.conf import settings
from django.contrib.sessions.models import Session
from django.utils import timezone

from console import tasks

pytestmark = pytest.mark.django_db


def test_ended_sessions_and_old_records_of_sign_ins_are_forgotten() -> None:
    now = timezone.now()
    for key, ends in (("ended", now - timedelta(minutes=1)), ("lives", now + timedelta(hours=1))):
        Session.objects.create(session_key=key, session_data="", expire_date=ends)
    for kind in (AccessLog, AccessFailureLog):
        for days in (settings.SLUICE_KEEP_DAYS + 1, 1):
            row = kind.objects.create(username="mara")
            kind.objects.filter(pk=row.pk).update(attempt_time=now - timedelta(days=days))
    assert tasks.forget_sign_ins() == 3
    assert [one.session_key for one in Session.objects.all()] == ["lives"]
    assert AccessLog.objects.count() == AccessFailureLog.objects.count() == 1


def test_every_scheduled_task_exists() -> None:
    from console.celery import app

    app.loader.import_default_modules()
    wanted = {one["task"] for one in settings.CELERY_BEAT_SCHEDULE.values()}
    assert wanted <= set(app.tasks)
