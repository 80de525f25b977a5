"""What an answer shows is written down before it leaves, whatever its status."""

from __future__ import annotations

import pytest
from django.urls import reverse

from control.models import AuditEntry
from tests.decisions.factory import event

pytestmark = pytest.mark.django_db
APP = "app_7q2m4kx9"


def looks(app: str = APP) -> list[str]:
    """What was looked at of an app, oldest first."""
    found = AuditEntry.objects.filter(action="app.look", subject=app).order_by("seq")
    return [row.after["what"] for row in found]


def test_rows_beside_a_refused_filter_are_looked_at(signed_in, stored) -> None:
    one = event()
    stored([one])
    answer = signed_in("support").get(reverse("lookup"), {"q": one.request_id, "action": "explode", "f": "1"})
    assert answer.status_code == 422
    assert one.id.hex() in answer.content.decode()
    assert looks() == ["lookup results"]
