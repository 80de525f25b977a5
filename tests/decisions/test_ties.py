"""An outcome is tied to its app by whatever names one, whenever that becomes known; what cannot be
tied waits for 30 days and says so.
"""

from __future__ import annotations

import itertools
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.db import IntegrityError, connection, transaction
from hypothesis import given, settings
from hypothesis import strategies as st

from control.audit.actors import Actor
from control.models import App, Tenant
from decider.contracts.event import Event
from decider.contracts.vocabulary import Action, Reason, Stage
from decider.refusal.receipt import Key, Receipt
from decisions.counts.seen_tokens import SeenTokens
from decisions.models import Decision, Outcome, OutcomeTie
from decisions.outcomes import evidence, reports, ties
from decisions.outcomes.reports import Invalid, Report
from decisions.store import copy_format, rows
from decisions.tasks import tie_outcomes
from tests.decisions.factory import event

PRIYA = Actor("Priya Raman", "priya@example.org", "Policy admin")
WHEN = datetime.now(UTC) - timedelta(hours=2)
TOKEN = "9f20" * 8
DAY = timedelta(days=1)
pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def key(keys: Path, settings) -> Key:
    """The key of this installation's receipts."""
    settings.SLUICE_KEYS = keys
    return Key(bytes.fromhex((keys / "token.key").read_text()))


def keep(*events: Event) -> None:
    """Stores events and their credentials as a worker does."""
    seen = SeenTokens()
    with transaction.atomic():
        rows.copy_events(list(events), copy_format.Texts())
        seen.add(events)


def register(app: str) -> None:
    tenant, _ = Tenant.objects.get_or_create(id="t", defaults={"name": "Tidewell"})
    App.objects.create(id=app, name=app, tenant=tenant, tier=1)


def sealed(key: Key, made: Event) -> str:
    return key.seal(
        Receipt(
            made.id,
            made.at,
            Action.DEFER,
            Stage.RANK,
            Reason.RISK_HIGH,
            4,
            7,
            "0123456789ab",
            key.pseudonym(made.app),
            ("BURST_HIGH",),
        )
    )


def send(key: str = "one", **fields: object) -> None:
    made = Report(key, "chargeback", WHEN, **fields)
    reports.report_all([made], by=PRIYA, reason="By hand", source="api")


def tie(key: str = "one") -> OutcomeTie:
    return OutcomeTie.objects.get(outcome__key=key)


def known(key: str = "one") -> tuple[str, str, str]:
    found = tie(key)
    return found.state, found.app, found.how


def later(**ago: float) -> ties.Tried:
    return ties.try_again(datetime.now(UTC) + timedelta(**ago))


def test_a_tie_by_app_is_settled_at_once() -> None:
    send(app="app_a")
    assert (known(), tie().next_at) == (("tied", "app_a", "app"), None)


@pytest.mark.parametrize("name", ["decision", "request", "token", "receipt"])
def test_what_becomes_known_later_ties_without_a_change_of_the_report(key, name: str) -> None:
    made = event(app="app_a", request_id="req_1", token_digest=TOKEN)
    named = {
        "decision": {"decision": uuid.UUID(bytes=made.id)},
        "request": {"request_id": "req_1"},
        "token": {"token_digest": TOKEN},
        "receipt": {"receipt": sealed(key, made)},
    }[name]
    send(**named)
    before = Outcome.objects.values().get()
    assert known() == ("unknown", "", "")
    assert later(minutes=6).tied == 0
    keep(made)
    assert later(days=1).tied == 1
    assert known() == ("tied", "app_a", name)
    assert Outcome.objects.values().get() == before
    assert [o.key for o in reports.of_app("app_a")] == ["one"]
    send(**named)
    assert Outcome.objects.count() == 1


def test_a_receipt_ties_the_app_of_a_decision_that_is_nowhere_stored(key) -> None:
    register("app_a")
    made = event(app="app_a")
    send(receipt=sealed(key, made))
    assert (known(), tie().next_at) == (("tied", "app_a", "receipt"), None)
    assert tie().decision == uuid.UUID(bytes=made.id)


def test_an_outcome_with_a_receipt_is_on_the_page_of_its_decision(key) -> None:
    made = event(app="app_a")
    keep(made)
    send(receipt=sealed(key, made))
    d = Decision.objects.get(id=uuid.UUID(bytes=made.id))
    assert [(one.outcome.key, one.about) for one in reports.of_decision(d)] == [
        ("one", "this decision")
    ]


def test_a_receipt_that_is_changed_or_about_something_else_is_refused(key) -> None:
    made, other = event(app="app_a"), event(app="app_b")
    good = sealed(key, made)
    wrong = [
        ({"receipt": good[:-4] + ("AAAA" if good[-4:] != "AAAA" else "BBBB")}, "receipt"),
        ({"receipt": sealed(Key(b"\x01" * 32), made)}, "not made with a key of this"),
        ({"receipt": good, "app": "app_b"}, "another app than the one given"),
        ({"receipt": good, "decision": uuid.UUID(bytes=other.id)}, "another decision"),
    ]
    for fields, said in wrong:
        with pytest.raises(Invalid, match=said) as caught:
            send(**fields)
        assert {p.field for p in caught.value.problems} == {"receipt"}
    assert not Outcome.objects.exists()


def test_without_the_keys_a_receipt_waits(key, keys: Path) -> None:
    register("app_a")
    text = sealed(key, event(app="app_a"))
    moved = (keys / "token.key").rename(keys / "away")
    send(receipt=text)
    assert known() == ("unknown", "", "")
    moved.rename(keys / "token.key")
    later(minutes=6)
    assert known() == ("tied", "app_a", "receipt")


def test_two_apps_with_the_same_request_id_are_not_told_apart_by_it() -> None:
    """A client chooses its request ids: it must not put its fraud down to another app."""
    keep(event(app="app_a", request_id="req_1"))
    send(request_id="req_1")
    assert known() == ("tied", "app_a", "request")
    keep(event(app="app_b", request_id="req_1"))
    assert later(days=1).untied == 1
    assert known() == ("several", "", "")
    later(days=2)
    assert known() == ("several", "", "")


def test_a_decision_that_contradicts_the_reported_app_later_unties_it() -> None:
    made = event(app="app_a")
    send(app="app_b", decision=uuid.UUID(bytes=made.id))
    assert known() == ("tied", "app_b", "app")
    keep(made)
    later(days=1)
    assert (known(), tie().next_at) == (("several", "", ""), None)


def test_a_request_id_on_too_many_decisions_names_none(monkeypatch) -> None:
    monkeypatch.setattr(evidence, "MOST_OF_REQUEST", 2)
    keep(*(event(app="app_a", request_id="0") for _ in range(3)))
    send(request_id="0")
    assert known() == ("several", "", "")


def test_it_is_tried_for_thirty_days_and_then_stays_unknown() -> None:
    send(request_id="req_1")
    start, tries = datetime.now(UTC), 0
    while (due := tie().next_at) is not None:
        assert due <= start + ties.KEEP_TRYING
        assert ties.try_again(due - timedelta(seconds=1)).tried == 0
        assert ties.try_again(due).tried == 1
        tries += 1
    # doubling from five minutes to a day, then daily
    assert 30 < tries < 45
    assert known() == ("unknown", "", "")
    keep(event(app="app_a", request_id="req_1"))
    assert later(days=40).tried == 0
    (one,) = ties.unknown_by_reporter()
    assert (one.source, one.by, one.count, one.over, one.waiting) == ("api", "Priya Raman", 1, 1, 0)


def test_a_run_after_a_long_outage_still_looks_once_before_it_gives_up() -> None:
    send(request_id="req_1")
    keep(event(app="app_a", request_id="req_1"))
    assert later(days=60).tied == 1
    assert known() == ("tied", "app_a", "request")


def test_a_run_is_bounded_and_takes_the_longest_due_first(monkeypatch) -> None:
    monkeypatch.setattr(ties, "CHUNK", 2)
    for k in range(5):
        send(f"k{k}", request_id=f"req_{k}")
        OutcomeTie.objects.filter(outcome__key=f"k{k}").update(next_at=WHEN - timedelta(minutes=k))
    assert ties.try_again(most=3).tried == 3
    waiting = OutcomeTie.objects.filter(next_at__lte=datetime.now(UTC))
    assert set(waiting.values_list("outcome__key", flat=True)) == {"k0", "k1"}


def test_the_task_says_what_it_did_and_does_it_once() -> None:
    send(request_id="req_1")
    OutcomeTie.objects.update(next_at=WHEN)
    keep(event(app="app_a", request_id="req_1"))
    assert tie_outcomes() == {"tied": 1, "untied": 0, "given_up": 0, "tried": 1}
    assert tie_outcomes() == {"tied": 0, "untied": 0, "given_up": 0, "tried": 0}


def test_the_unknown_are_counted_by_who_reported_them(monkeypatch) -> None:
    for k in range(3):
        send(f"k{k}", request_id=f"req_{k}")
    keep(event(app="app_a", request_id="x"), event(app="app_b", request_id="x"))
    send("several", request_id="x")
    send("tied", app="app_a")
    (one,) = ties.unknown_by_reporter()
    assert (one.waiting, one.over, one.several, one.count) == (3, 0, 1, 4)
    assert one.since == tie("k0").since
    monkeypatch.setattr(ties, "MOST_REPORTERS", 0)
    assert (ties.unknown_by_reporter(), ties.count_unknown()) == ([], 4)


def test_the_database_refuses_a_tie_that_is_half() -> None:
    send(app="app_a")
    for change in ({"app": ""}, {"how": ""}, {"state": "unknown"}, {"state": "maybe"}):
        with pytest.raises(IntegrityError, match="tie_is_whole"), transaction.atomic():
            OutcomeTie.objects.update(**change)


def test_what_is_due_is_found_by_its_index() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        due = OutcomeTie.objects.filter(next_at__lte=WHEN).order_by("next_at", "pk")
        assert "tie_due" in due.explain()
        assert "outcome_stored" in reports.latest()[:25].explain()
        assert "tie_app" in reports.latest("app_a").explain()
        assert "tie_unknown" in OutcomeTie.objects.filter(app="").order_by("since").explain()


# What may arrive about one outcome: decisions of two apps under its names, and apps registered.
APPS, NAMES = ("app_a", "app_b"), ("decision", "request_id", "token_digest", "receipt")


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Draw the names that a report gives, and what arrives before or after it."""
    given_names = tuple(sorted(draw(st.sets(st.sampled_from(NAMES), min_size=1))))
    others = st.tuples(
        st.just("decision"), st.sampled_from(APPS), st.sampled_from(["", "req", "tok"])
    )
    # the decision itself, which is of the first app
    decisions = st.one_of(st.just(("decision", "app_a", "id")), others)
    registered = st.tuples(st.just("app"), st.sampled_from(APPS))
    return given_names, draw(st.lists(st.one_of(decisions, registered), max_size=4, unique=True))


_runs = itertools.count(1)


def _ends(names: tuple[str, ...], order: list[tuple[str, ...]], key: Key) -> tuple[str, ...]:
    """Return what a report is tied to after everything has arrived in this order. Each run has apps
    and names of its own.
    """
    run = next(_runs)
    about = {"request_id": f"req_{run}", "token_digest": f"{run:032x}"}
    subject = event(app=f"app_a{run}", **about)
    shared = {
        "req": {"request_id": about["request_id"]},
        "tok": {"token_digest": about["token_digest"]},
    }
    values = {"decision": uuid.UUID(bytes=subject.id), "receipt": sealed(key, subject), **about}
    for day, what in enumerate(order, start=1):
        if what[0] == "report":
            send(f"run-{run}", **{name: values[name] for name in names})
        elif what[0] == "app":
            register(f"{what[1]}{run}")
        else:
            _, app, name = what
            keep(subject if name == "id" else event(app=f"{app}{run}", **shared.get(name, {})))
        ties.try_again(datetime.now(UTC) + day * DAY)
    OutcomeTie.objects.update(next_at=None)
    state, app, how = known(f"run-{run}")
    return state, app.removesuffix(str(run)), how


def test_whatever_the_order_of_arrival_the_tie_ends_the_same(key) -> None:
    seen: set[str] = set()

    @given(arrivals(), st.randoms(use_true_random=False))
    @settings(max_examples=40)
    def check(drawn: tuple, random) -> None:
        names, others = drawn
        orders = list(itertools.permutations([("report",), *others]))
        picked = random.sample(orders, min(3, len(orders)))
        ends = {_ends(names, list(order), key) for order in picked}
        assert len(ends) == 1
        seen.add(ends.pop()[0])

    check()
    # the examples reach every way to end
    assert seen == {"tied", "unknown", "several"}


FOUND = st.builds(
    evidence.Evidence,
    st.dictionaries(
        st.sampled_from([ties.TieHow.APP, ties.TieHow.DECISION, ties.TieHow.RECEIPT]),
        st.sampled_from(APPS),
    ),
    st.dictionaries(
        st.sampled_from([ties.TieHow.REQUEST, ties.TieHow.TOKEN]),
        st.frozensets(st.sampled_from(APPS), min_size=1),
    ),
    st.booleans(),
)


def joined(some: list[evidence.Evidence]) -> ties.Standing:
    found = ties.Standing()
    for one in some:
        # nothing is looked for once it is settled
        if not found.contradicts:
            found = ties.join(found, one)
    return found


@given(st.lists(FOUND, max_size=4), st.randoms(use_true_random=False))
def test_joining_evidence_does_not_ask_for_its_order_nor_how_often(some, random) -> None:
    again = [*some, *random.sample(some, len(some) // 2)]
    random.shuffle(again)
    assert joined(again) == joined(some)


def test_many_are_tried_in_seconds() -> None:
    made = [Report(f"k{k}", "churn", WHEN, request_id=f"req_{k}") for k in range(ties.MOST_TRIED)]
    reports.report_all(made, by=PRIYA, reason="Many", source="api")
    OutcomeTie.objects.update(next_at=WHEN)
    began = time.process_time()
    assert ties.try_again().tried == ties.MOST_TRIED
    # of this process alone; a wrong query for each would take far longer
    assert time.process_time() - began < 5
