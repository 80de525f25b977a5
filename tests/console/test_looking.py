"""What an answer shows of an app is written down before it leaves, whatever its status and whoever
asks.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

import pytest
from django.contrib.auth.models import Group
from django.test import Client
from django.urls import URLResolver, get_resolver, reverse
from django.utils import timezone

from console.frame import app_looks as notes_of_looks
from control.audit import app_looks as control_looks
from control.audit.actors import Actor
from control.models import App, Look, Tenant
from decider.contracts.ids import format_decision_id
from decider.contracts.vocabulary import Action, Reason, Stage
from decider.refusal.receipt import Key, Receipt
from decisions.models import Dispute
from decisions.outcomes import disputes, reports
from decisions.search import lookup
from decisions.search.lookup import find
from tests.decisions.factory import event, id_at
from tests.pages import shown

pytestmark = pytest.mark.django_db
APP = "app_7q2m4kx9"
OTHER = Actor("Dele Okafor", "dele@example.org", "SRE")


def looks(app: str = APP) -> list[str]:
    """What was looked at of an app, oldest first."""
    return list(Look.objects.filter(app=app).order_by("seq").values_list("what", flat=True))


class Stored:
    """A stored refusal of a registered app, disputed, with an outcome and a receipt; the values
    that addresses are made of.
    """

    def __init__(self, keys) -> None:
        App.objects.create(
            id=APP, name="Order sync", tenant=Tenant.objects.create(id="t", name="Tidewell"), tier=1
        )
        self.one = event(at=time.time() - 20)
        self.near = format_decision_id(id_at(self.one.at + 1))
        """An id of about the same moment that is not stored."""
        self.key = Key(bytes.fromhex((keys / "token.key").read_text()))

    @property
    def name(self) -> str:
        return format_decision_id(self.one.id)

    @property
    def receipt(self) -> str:
        return self.key.seal(
            Receipt(
                self.one.id,
                self.one.at,
                Action.DEFER,
                Stage.RANK,
                Reason.RISK_HIGH,
                4,
                1,
                "0123456789ab",
                self.key.pseudonym(APP),
                (),
            )
        )

    def dispute(self) -> Dispute:
        decision = find(uuid.UUID(bytes=self.one.id))
        assert decision is not None
        return disputes.open_dispute(decision, by=OTHER, reason="It was their nightly job.")

    def outcome(self) -> None:
        report = reports.Report("k1", "fraud_confirmed", timezone.now(), app=APP)
        reports.report_all([report], by=OTHER, reason="a test", source="api")


@pytest.fixture
def there(keys, stored) -> Stored:
    made = Stored(keys)
    stored([made.one])
    return made


@pytest.fixture
def anyone(person) -> Client:
    """Someone who may do everything."""
    who, client = person("support"), Client()
    who.groups.set(Group.objects.all())
    client.force_login(who, backend="django.contrib.auth.backends.ModelBackend")
    return client


Call = Callable[[Client, Stored], object]


def _get(name: str, *args: str, **given: str) -> Call:
    """Asks for a page; values may be named attributes of `Stored`."""

    def call(client: Client, there: Stored) -> object:
        return client.get(
            reverse(name, args=[getattr(there, a[1:]) if a.startswith("$") else a for a in args]),
            given,
        )

    return call


def _of_dispute(name: str) -> Call:
    return lambda client, there: client.get(reverse(name, args=[there.dispute().pk]))


def _with_outcome(name: str, **given: str) -> Call:
    def call(client: Client, there: Stored) -> object:
        there.outcome()
        return client.get(reverse(name), given)

    return call


def _with_dispute(name: str) -> Call:
    def call(client: Client, there: Stored) -> object:
        there.dispute()
        return client.get(reverse(name))

    return call


def _sent(name: str, body: Callable[[Stored], dict], *args: str) -> Call:
    def call(client: Client, there: Stored) -> object:
        where = reverse(
            name, args=[getattr(there, a[1:]) if a.startswith("$") else a for a in args]
        )
        return client.post(where, body(there), content_type="application/json")

    return call


def _verdict(client: Client, there: Stored) -> object:
    where = reverse("api-verdict", args=[there.dispute().pk])
    return client.post(
        where, {"verdict": "uphold", "reason": "It was."}, content_type="application/json"
    )


def _tail(client: Client, there: Stored) -> object:
    return client.get(
        reverse("ui-lookup-tail"), {"after": str(lookup.id_at(there.one.at - 60)), "f": "1"}
    )


def _note(client: Client, there: Stored) -> object:
    client.post(reverse("app-note", args=[APP]), {"text": "Expect a burst."})
    return client.get(reverse("api-app-notes", args=[APP]))


SHOWS: dict[str, Call] = {
    "lookup": _get("lookup", f="1"),
    "ui-lookup-tail": _tail,
    "lookup-csv": lambda client, there: client.get(
        reverse("lookup-csv"), {"q": there.one.request_id, "f": "1"}
    ),
    "decision": _get("decision", "$name"),
    "decision-print": _get("decision-print", "$name"),
    "ui-explanation": _get("ui-explanation", "$name"),
    "ui-decided-now": lambda client, there: client.post(
        reverse("ui-decided-now", args=[there.name])
    ),
    "ui-around": _get("ui-around", "$name"),
    "ui-forecast": _get("ui-forecast", APP),
    "app": _get("app", APP),
    "app-gauges": _get("app-gauges", APP),
    "app-reset": _get("app-reset", "burst", APP),
    "receipt": _get("receipt", "$receipt"),
    "disputes": _with_dispute("disputes"),
    "dispute": _of_dispute("dispute"),
    "dispute-open": _get("dispute-open", "$name"),
    "outcomes": _with_outcome("outcomes"),
    "api-decisions": _get("api-decisions"),
    "api-counts": _get("api-counts", q=APP),
    "api-decision": _get("api-decision", "$name"),
    "api-record": _get("api-record", "$name"),
    "api-explanation": _get("api-explanation", "$name"),
    "api-counterfactual": _get("api-counterfactual", "$name"),
    "api-replay": _get("api-replay", "$name"),
    "api-limits": _get("api-limits", "$name"),
    "api-around": _get("api-around", "$name"),
    "api-minute": _get("api-minute", "$near"),
    "api-customer-text": _get("api-customer-text", "$name"),
    "api-lookup": _sent("api-lookup", lambda there: {"text": there.one.request_id}),
    "api-receipts": _sent("api-receipts", lambda there: {"receipt": there.receipt}),
    "api-export": _get("api-export", q=APP),
    "api-app": _get("api-app", APP),
    "api-app-policy": _get("api-app-policy", APP),
    "api-app-forecast": _get("api-app-forecast", APP),
    "api-app-buckets": _get("api-app-buckets", APP),
    "api-app-reset": _sent("api-app-reset", lambda _: {"reason": "SUP-1"}, APP, "burst"),
    "api-app-notes": _note,
    "api-outcomes": _with_outcome("api-outcomes"),
    "api-disputes": _with_dispute("api-disputes"),
    "api-dispute": _of_dispute("api-dispute"),
    "api-verdict": _verdict,
}
"""Every address that shows something of an app, and how it is asked for."""
ELSEWHERE = {"switch-flip", "switch-preview", "approval-noticed", "api-declaration-plan"}
"""They show examples when a change would change something; tested where these are."""
SHOWS_NONE = {
    "api-declaration",
    "api-declaration-apply",
    "api-app-imports",
    "home",
    "ui-home-mix",
    "service",
    "ui-service",
    "ui-strip",
    "login",
    "logout",
    "confirm",
    "preference",
    "tokens",
    "token-revoke",
    "people",
    "people-export",
    "people-review",
    "person",
    "person-change",
    "invitation",
    "choose-password",
    "api-people",
    "api-person",
    "api-person-deactivate",
    "api-person-activate",
    "api-role-give",
    "api-role-take",
    "ticket",
    "save-search",
    "delete-search",
    "ui-palette",
    "model-explanations",
    "switches",
    "propagation",
    # what is asked is of the config, not of an app's data
    "approvals",
    "approval",
    "approvals-mode",
    "approvals-review",
    "api-approvals",
    "api-approval",
    "api-approve",
    "api-veto",
    "api-withdraw",
    "api-rebase",
    "api-switches",
    "api-engage",
    "api-extend",
    "api-clear",
    "app-note",
    "app-looks",
    "api-schema",
    "api-app-looks",
    "api-searches",
    "api-search",
    "api-tokens",
    "api-token",
    "api-models",
    "api-status",
    "storing",
    "api-storing",
    "api-buried",
    "api-buried-replay",
    "api-buried-discard",
}
"""Sums over all apps, people's own things, and what says itself who looked."""


def _names(of: URLResolver) -> set[str]:
    inside = [_names(p) if isinstance(p, URLResolver) else {p.name} for p in of.url_patterns]
    return set().union(*inside)


def test_every_address_is_known_to_show_apps_or_none() -> None:
    assert _names(get_resolver()) == SHOWS.keys() | ELSEWHERE | SHOWS_NONE


@pytest.mark.parametrize("name", SHOWS)
def test_whatever_shows_an_app_is_a_look(name, there, anyone) -> None:
    answer = SHOWS[name](anyone, there)
    assert answer.status_code < 400
    assert looks() != []


@pytest.mark.parametrize("name", ["decision", "api-minute"])
def test_a_decision_that_was_not_kept_is_answered_with_others_which_are_looked_at(
    name, there, anyone
) -> None:
    anyone.get(reverse(name, args=[there.near]))
    assert looks() == [
        f"the minute of decision {there.near}" + " over the API" * (name == "api-minute")
    ]


def test_rows_beside_a_refused_filter_are_looked_at(there, anyone) -> None:
    answer = anyone.get(
        reverse("lookup"), {"q": there.one.request_id, "action": "explode", "f": "1"}
    )
    assert answer.status_code == 422
    assert there.name in shown(answer)
    assert looks() == ["lookup results"]


def test_a_list_is_one_look_for_each_of_its_apps_and_the_tail_adds_none_again(
    there, stored, anyone
) -> None:
    stored([event(app="app_two", at=time.time() - 15) for _ in range(3)])
    for _ in range(2):
        anyone.get(reverse("lookup"), {"f": "1"})
        _tail(anyone, there)
    assert looks() == looks("app_two") == ["lookup results"]


def test_an_export_of_every_app_is_found_from_each(there, anyone) -> None:
    anyone.get(reverse("lookup-csv"), {"f": "1"})
    assert notes_of_looks.EVERY_APP == control_looks.EVERY_APP
    assert [look.what for look in control_looks.latest_looks(APP)] == ["a CSV export of every app"]
    assert [look.what for look in control_looks.latest_looks("app_two")] == [
        "a CSV export of every app"
    ]


@pytest.mark.parametrize(
    "name",
    [
        "app",
        "app-gauges",
        "ui-forecast",
        "api-app",
        "api-app-buckets",
        "api-app-notes",
        "api-app-policy",
    ],
)
def test_an_id_that_nobody_has_leaves_nothing_in_the_log(name, anyone) -> None:
    anyone.get(reverse(name, args=["app_of_nobody"]))
    anyone.get(reverse("api-outcomes"), {"app": "app_of_nobody"})
    assert not Look.objects.exists()


@pytest.mark.parametrize("name", ["app", "app-gauges", "ui-forecast"])
def test_an_app_nobody_registered_is_looked_at_when_it_was_seen(name, stored, anyone) -> None:
    stored([event(app="app_stranger")])
    anyone.get(reverse(name, args=["app_stranger"]))
    assert len(looks("app_stranger")) == 1
