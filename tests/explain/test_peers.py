"""An app among its peers, and what happened to it around a decision."""

from __future__ import annotations

import time

import numpy as np
import pytest
from django.urls import reverse

from console.pages.decision import page
from decider.contracts.ids import format_decision_id
from decider.contracts.vocabulary import Reason
from decisions.models import Decision
from explain.comparison import peers, timeline
from explain.shap import backlog
from tests.decisions.factory import event, id_at, signal_vector, unranked, vector
from tests.explain import world
from tests.explain.test_decision_page import text_of
from tests.pages import shown

pytestmark = pytest.mark.django_db
AT = time.time() - 600.0


def at(seconds: float, make=unranked, **fields):
    return make(at=AT + seconds, id=id_at(AT + seconds), **fields)


def stored(store, decision, others) -> Decision:
    store([decision, *others])
    return Decision.objects.get(id=decision.id.hex())


def test_each_app_counts_once_by_its_weighted_mean(store) -> None:
    others = [at(-k, app=f"app_{k}", features=vector(rate_10s=float(k + 1))) for k in range(9)]
    # one app that is kept often when it is fast: its two refusals count 1 each, its admit counts 50
    others += [
        at(-20, event, app="app_8", features=vector(rate_10s=900.0), inclusion_probability=1.0)
        for _ in range(2)
    ]
    d = stored(store, at(0, event, features=vector(rate_10s=20.0)), others)
    found = peers.compare_with_peers(d, ("rate_10s",))
    assert found.apps == 9
    (row,) = found.rows
    assert row.value == "20"
    assert row.median_text == "5"
    assert row.rank == "top 11%"  # only the loud one is above
    assert row.low < row.median < row.low + row.width < 100


def test_one_unknown_value_takes_no_app_out_of_the_comparison(store) -> None:
    nothing = float("nan")
    others = [
        at(-k, app=f"app_{k}", features=vector(client_error_share_60s=0.01 * (k + 1)))
        for k in range(5)
    ]
    others += [
        at(-9, app="app_4", features=vector(client_error_share_60s=nothing)) for _ in range(3)
    ]
    d = stored(store, at(0, event, features=vector(client_error_share_60s=0.5)), others)
    (row,) = peers.compare_with_peers(d, ("client_error_share_60s",)).rows
    assert row.median_text == "3.0%"
    assert row.rank == "highest of 6"


def test_the_mean_is_of_what_is_known_and_unknown_where_nothing_is() -> None:
    nothing = np.nan
    values = np.array([[1.0, nothing, nothing], [3.0, 8.0, nothing]])
    assert peers._average_known(values, np.array([3.0, 1.0])).tolist()[:2] == [1.5, 8.0]
    assert np.isnan(peers._average_known(values, np.array([3.0, 1.0]))[2])


def test_fewer_than_five_similar_apps_are_not_compared_with(store) -> None:
    others = [at(-k, app=f"app_{k % 4}") for k in range(20)] + [
        at(-k, app=f"app_s{k}", service="search") for k in range(9)
    ]
    found = peers.compare_with_peers(stored(store, at(0, event), others))
    assert found.rows == ()
    assert found.apps == 0


def test_the_timeline_tells_what_led_to_it_and_what_came_after(store) -> None:
    empty = signal_vector(tier=1, tokens=0.2)
    others = [
        at(-50, signals=signal_vector(tier=1, tokens=40)),
        at(-30, signals=empty),
        at(-10, event, signals=empty),
    ]
    others += [
        at(3, event, signals=empty, inclusion_probability=0.25),
        at(6, event, signals=empty),
        at(9),
    ]
    d = stored(store, at(0, event, signals=empty), others)
    found = [
        (round(line.at.timestamp() - AT), line.text)
        for line in timeline.build_timeline(d, "HTTP 429, Retry-After 4")
    ]
    assert found == [
        (-30, "Burst bucket is empty from here to this decision"),
        (-10, "First refusal kept: defer"),
        (0, "This decision: defer, HTTP 429, Retry-After 4"),
        (6, "Last kept refusal, of about 6 (2 to 19) after this decision"),
        (9, "Same endpoint again, 9.0 s later: admit"),
    ]


@pytest.mark.parametrize("htmx", [True, False])
def test_the_panels_load_by_themselves_and_without_script(
    models, document, store, browser, htmx
) -> None:
    row = world.rows(1, seed=2, missing=False)[0]
    # by its own burst: who loaded that limit is told, too
    refused = world.decided(row, document=document, at=AT, id=id_at(AT), seen_tokens=-299.5)
    assert refused.reason == Reason.BURST_EXHAUSTED
    store(
        [
            refused,
            *(at(-k, app=f"app_{k}", features=vector(rate_10s=float(k + 1))) for k in range(9)),
        ]
    )
    where = reverse("ui-around", args=[format_decision_id(refused.id)])
    response = browser().get(where, headers={"hx-request": "true"} if htmx else {})
    assert "9 standard-tier apps on orders-read" in text_of(response)
    assert "Who loaded the limit" in text_of(response)
    assert ("<html" in shown(response)) != htmx
    assert browser("").get(where).status_code == 403


@pytest.mark.parametrize(("times", "ordinary"), [(1.0, True), (0.1, False)])
def test_a_value_that_peers_have_as_well_now_is_told_beside_the_verdict(
    models, document, store, browser, times, ordinary
) -> None:
    """The headline compares with training; support needs to know that it is usual by now."""
    rows = world.rows(120, seed=22, missing=False)
    made = [world.decided(row, document=document, at=AT, id=id_at(AT)) for row in rows]
    ranked = [e for e in made if e.reason == Reason.RISK_HIGH]
    store(ranked)
    backlog.explain_since(0.0)
    named = {}
    for d in Decision.objects.filter(reason=int(Reason.RISK_HIGH)):
        reason = page.explained(d).reasons[0]
        if reason.feature.name == "rate_10s" and reason.value > reason.typical:
            named[d.name] = reason.value
    name, value = next(iter(named.items()))
    store(
        [
            at(-k, app=f"app_{k}", features=vector(rate_10s=value * times * (1 + k / 10)))
            for k in range(9)
        ]
    )
    client = browser()
    response = client.get(reverse("ui-around", args=[name]), headers={"hx-request": "true"})
    assert ("Compared with its peers now this is not much" in text_of(response)) == ordinary
    assert 'id="peers-now" hx-swap-oob="true"' in shown(response)
    assert 'id="peers-now"' in shown(client.get(reverse("decision", args=[name])))
