"""Background work of the console."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.conf import settings
from django.contrib.sessions.models import Session
from django.utils import timezone

from console import tasks
from control.models import SignInTry
from control.people import guessing

pytestmark = pytest.mark.django_db


def test_ended_sessions_and_old_tries_to_sign_in_are_forgotten() -> None:
    now = timezone.now()
    for key, ends in (("ended", now - timedelta(minutes=1)), ("lives", now + timedelta(hours=1))):
        Session.objects.create(session_key=key, session_data="", expire_date=ends)
    for name, at in (("old", now - guessing.KNOWN - timedelta(hours=1)), ("new", now)):
        guessing.wait_before("198.51.100.1", name, at)
    # the address has one row for both names, which the newer try keeps
    assert tasks.forget_sign_ins() == 2
    assert [one.session_key for one in Session.objects.all()] == ["lives"]
    assert SignInTry.objects.count() == 2


def test_every_scheduled_task_exists() -> None:
    from console.celery import app

    app.loader.import_default_modules()
    wanted = {one["task"] for one in settings.CELERY_BEAT_SCHEDULE.values()}
    assert wanted <= set(app.tasks)
