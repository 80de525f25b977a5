"""Pages tell what is not believed of deciders, and stand whatever lies in their places."""

from __future__ import annotations

import time

import msgspec
import pytest
import redis
from django.urls import reverse
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from control.audit.actors import SYSTEM
from control.config import changes
from control.deciders import buckets
from decider.contracts import store
from decider.contracts.sealed import codes
from decider.contracts.sealed import told as sealing
from decider.contracts.sealed.told import Kind
from decider.contracts.store import Ack, OutcomesStatus
from decider.node import commands
from decider.node.commands import Answer, Spending, View
from tests.console.conftest import MODEL, load, status
from tests.console.one_app import HTMX, text_of, url
from tests.pages import shown
from tests.told import sealed, token_key

pytestmark = pytest.mark.django_db
NONCE = "ab" * 16
PAGES = ("home", "propagation", "switches")


def put(valkey: redis.Redis, node: str, data: bytes) -> None:
    valkey.set(store.NODE_PREFIX + node, data, ex=store.NODE_TTL_S)
    valkey.zadd(store.NODES_KEY, {node: time.time()})


def test_home_names_who_is_not_believed_and_why(signed_in, publish, beat, valkey) -> None:
    publish(model=MODEL)
    beat("d01")
    put(valkey, "d02", msgspec.msgpack.encode(status("d02", time.time())))
    text = shown(signed_in("sre").get(reverse("home")))
    assert "A decider’s report was not believed" in text
    assert "d02’s report: it is not sealed: an older version wrote it, or it is forged." in text
    assert "Running, degraded" in text
    # counted among the deciders, and not among those that follow the config
    assert "ML decides on all 1 deciders" not in text


def test_home_names_an_ack_that_is_not_believed(signed_in, publish, beat, valkey) -> None:
    publish(model=MODEL)
    beat("d01")
    now = time.time()
    forged = Ack("d01", "local", 7, True, "", now, now, 0.4, now)
    valkey.hset(store.ACKS_PREFIX + "7", "d01", msgspec.msgpack.encode(forged))
    text = shown(signed_in("sre").get(reverse("home")))
    assert "d01’s ack: it is not sealed" in text


def test_home_says_that_outcomes_are_not_believed_or_not_sealed(signed_in, publish, beat) -> None:
    publish(model=MODEL)
    why = "they are not sealed: an older program sent them, or a stranger"
    beat("d01", outcomes=OutcomesStatus(9, 7, 5, 3, why))
    text = shown(signed_in("sre").get(reverse("home")))
    assert f"7 entries in the last minute: {why}." in text
    assert "Outcomes without a seal are taken" in text


def test_the_propagation_panel_says_that_it_is_not_known_what_it_runs(signed_in, valkey) -> None:
    changes.first(by=SYSTEM, reason="A new installation")
    put(valkey, "d02", msgspec.msgpack.encode(status("d02", time.time())))
    text = text_of(signed_in("sre").get(reverse("propagation")))
    assert "It is not known what d02 runs: its report is not believed: it is not sealed" in text
    assert "not believed" in text


@pytest.mark.usefixtures("known")
def test_an_answer_that_is_not_believed_is_named(signed_in, beat, valkey, monkeypatch) -> None:
    monkeypatch.setattr(buckets.secrets, "token_hex", lambda _: NONCE)
    monkeypatch.setattr(buckets, "WAIT_S", 0.2)
    beat("d01")
    forged = Answer("d01", "local", NONCE, time.time(), None)
    valkey.rpush(store.ANSWERS_PREFIX + NONCE, msgspec.msgpack.encode(forged))
    text = text_of(signed_in("support").get(url("app-gauges"), **HTMX))
    assert "An answer of d01 was not believed: it is not sealed" in text


NUMBERS = st.sampled_from([0, 1, -1, 5, 99, 2**31, 2**62, 2**63 - 1, 2**64 - 1])
FIGURES = st.one_of(st.floats(), st.sampled_from([0.0, -0.5, 1e15, -1e15, 7e9, -1.0]))
TEXTS = st.sampled_from(["", "<b>", "x" * 1_000, "x" * 1_001, "\x00", "\u202e", "d02"])
ODD = st.one_of(st.none(), st.booleans(), st.binary(max_size=9), st.just([]), NUMBERS, TEXTS)
# Values of the type that a field has reach furthest.
VALUES: dict[type, st.SearchStrategy] = {int: NUMBERS, float: FIGURES, str: TEXTS}


def spots_in(fields: list) -> list[tuple[list, int]]:
    """The places of a message's values: its own fields and those within."""
    lists = [fields, *(one for one in fields if isinstance(one, list) and one)]
    lists += [one for field in lists[1:] for one in field if isinstance(one, list) and one]
    return [(one, k) for one in lists for k in range(len(one))]


@st.composite
def written(draw: st.DrawFn, kind: Kind, message: msgspec.Struct) -> bytes:
    """What somebody may write in a decider's place, with the installation's key or without."""
    way = draw(st.sampled_from(["rubbish", "cut", "extreme", "sealed extreme", "sealed extreme"]))
    if way == "rubbish":
        return draw(st.binary(max_size=200))
    if way == "cut":
        return sealed(message)[: -draw(st.integers(1, 300))]
    fields: list = msgspec.to_builtins(message)
    inside, k = draw(st.sampled_from(spots_in(fields)))
    inside[k] = draw(st.one_of(VALUES.get(type(inside[k]), ODD), ODD))
    body = msgspec.msgpack.encode(fields)
    if way == "extreme":
        return body
    key = kind.derive_key(token_key())
    return msgspec.msgpack.encode([0, codes.seal(body, key)])


@hypothesis_settings(max_examples=120, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_pages_stand_whatever_is_reported_and_acked(
    signed_in_once, publish, valkey, data: st.DataObject
) -> None:
    now = time.time()
    publish(model=MODEL)
    valkey.delete(store.NODES_KEY)
    said = status("d01", now, services=[load("orders-read", 0.4), load("payments", 0.9)])
    put(valkey, "d01", data.draw(written(sealing.HEARTBEAT, said)))
    acked = Ack("d01", "local", 7, True, "", now, now, 0.4, now)
    valkey.hset(store.ACKS_PREFIX + "7", "d01", data.draw(written(sealing.ACK, acked)))
    put(valkey, "d02", sealed(status("d02", now)))
    for page in PAGES:
        response = signed_in_once.get(reverse(page))
        assert response.status_code == 200


@pytest.mark.usefixtures("known")
@hypothesis_settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_an_apps_page_stands_whatever_is_answered(
    signed_in_once, valkey, beat, data: st.DataObject
) -> None:
    now = time.time()
    spending = (Spending(3_600.0, 10.0, 1.0, 0.5, 0.4), Spending(86_400.0, 10.0, 1.0, 0.5, 0.4))
    figures = (10.0, 50.0, 5.0, 1.0, 9.0, 10.0, 0.5, 1.0, 2.0, 0.0, 0.0, now, now, 0.1, spending)
    answer = Answer("d01", "local", NONCE, now, View(5, 3, *figures))
    valkey.delete(store.ANSWERS_PREFIX + NONCE)
    valkey.rpush(store.ANSWERS_PREFIX + NONCE, data.draw(written(commands.ANSWER, answer)))
    response = signed_in_once.get(url("app-gauges"), **HTMX)
    assert response.status_code == 200


@pytest.fixture
def signed_in_once(signed_in, monkeypatch):
    """One browser for all examples of a property."""
    monkeypatch.setattr(buckets.secrets, "token_hex", lambda _: NONCE)
    monkeypatch.setattr(buckets, "WAIT_S", 0.05)
    monkeypatch.setattr(buckets, "HOPE_S", 0.05)
    return signed_in("sre")
