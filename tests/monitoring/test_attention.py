from __future__ import annotations

from dataclasses import replace

from decider.contracts import defaults
from decider.contracts.config import ModelRef, Switch
from decider.contracts.store import (
    AgentStatus,
    GatewayStatus,
    IdentityStatus,
    IngestStatus,
    RoutingStatus,
    TimelyStatus,
)
from decider.contracts.vocabulary import MlState
from monitoring import attention, guardrails
from monitoring.attention import Explained, Facts
from monitoring.fleet import Fleet, Lost
from monitoring.storing import Storing
from tests.console.conftest import load, status

NOW = 1_763_476_327.0
MODEL = ModelRef(name="risk", version=1, digest="ab" * 32)


def config(**fields):
    import msgspec

    return msgspec.structs.replace(defaults.config(7, NOW - 477), **({"model": MODEL} | fields))


CALM = Fleet(
    NOW,
    (status("d01", NOW), status("d02", NOW)),
    (),
    config(),
    "",
    IngestStatus(NOW, 1.8, 100, 0),
    0,
)


def titles(fleet: Fleet | None = CALM, **facts) -> list[str]:
    return [item.title for item in attention.find(Facts(fleet, **facts))]


def test_a_calm_installation_needs_nobody() -> None:
    assert titles() == []


def test_valkey_away_comes_first() -> None:
    assert titles(None) == ["Valkey does not answer"]


def test_a_lost_decider_and_one_behind_are_named_with_since_when() -> None:
    behind = replace(
        CALM,
        nodes=(status("d01", NOW, config_version=6, last_error="the signature does not match"),),
        lost=(Lost("d02", NOW - 40),),
    )
    lost, late = attention.find(Facts(behind))
    assert (lost.title, lost.detail[:24]) == (
        "d02 has stopped reporting",
        "Last report 40 s ago. Th",
    )
    assert late.title == "d01 is one config behind"
    assert late.detail == "Still on cfg 6 after 7 m 57 s. The signature does not match."


def test_a_decider_has_a_moment_to_follow() -> None:
    fresh = replace(
        CALM, nodes=(status("d01", NOW, config_version=6),), config=config(issued_at=NOW - 2)
    )
    assert titles(fresh) == []


def test_a_decider_whose_clock_jumped_is_named() -> None:
    jumped = replace(CALM, nodes=(status("d01", NOW), status("d02", NOW, clock_steps=2)))
    (item,) = attention.find(Facts(jumped))
    assert item.title == "A decider’s clock jumped"
    assert item.detail.startswith("d02: up to 2 times since the start. Limits went on")


def test_quotas_that_are_rebuilt_say_who_waits_for_whom_and_until_when() -> None:
    waiting = replace(
        CALM, nodes=tuple(status(f"d0{k}", NOW, leases_wait="d09") for k in range(1, 6))
    )
    (item,) = attention.find(Facts(waiting))
    assert item.title == "Daily quotas are being rebuilt"
    assert item.detail.startswith("New leases on d01, d02, d03 and 2 more wait for d09. Until then")


def test_leases_that_the_store_must_not_grant_are_counted() -> None:
    lied = replace(CALM, nodes=(status("d01", NOW, leases_refused=2), status("d02", NOW)))
    assert titles(lied) == ["Answers about 2 leases were refused"]


def test_deciders_that_do_not_hear_of_the_others_are_named() -> None:
    nodes = (status("d01", NOW), status("d02", NOW, alone=True))
    (item,) = attention.find(Facts(replace(CALM, nodes=nodes)))
    assert item.title == "Deciders decide alone"
    assert item.detail.startswith("d02: no reports of the other deciders arrive.")


def test_deciders_ahead_of_the_published_config_are_told() -> None:
    nodes = (status("d01", NOW, config_version=2**32 + 9), status("d02", NOW))
    (item,) = attention.find(Facts(replace(CALM, nodes=nodes)))
    assert item.title == "Deciders follow a newer config than the console knows"
    assert item.detail.startswith("d01: config 1.9; published is 7. No switch reaches them.")


def test_forged_reports_between_deciders_are_told() -> None:
    nodes = (status("d01", NOW, reports_rejected=3), status("d02", NOW))
    (item,) = attention.find(Facts(replace(CALM, nodes=nodes)))
    assert item.title == "Reports between deciders were not authentic"
    assert item.detail.startswith("d01: up to 3 since the start. They were ignored.")


def test_old_files_of_keys_and_unread_credentials_are_told() -> None:
    stale = IdentityStatus("/etc/sluice/jwks.json: no JWK Set", 5, 9, 3)
    nodes = (status("d01", NOW, identity=stale), status("d02", NOW))
    old, unread = attention.find(Facts(replace(CALM, nodes=nodes)))
    assert old.title == "Deciders read credentials with old files"
    assert old.detail.startswith("d01: /etc/sluice/jwks.json: no JWK Set.")
    assert unread.title == "3 credentials were not read in the last minute"


def test_agents_of_gateways_that_are_silent_stale_or_full_are_told() -> None:
    agents = (AgentStatus("edge-1", NOW, 3, 50_000, 7, "config refused: forged"),)
    lost = (Lost("edge-2", NOW - 60),)
    facts = Facts(replace(CALM, agents=agents, lost_agents=lost))
    stale, silent, full = attention.find(facts)
    assert stale.title == "edge-1 holds old block rules"
    assert silent.title == "The agent of edge-2 has stopped reporting"
    assert full.title == "7 rules are more than edge-1 is given"


def test_requests_that_went_to_another_service_are_shown_with_the_last_one() -> None:
    wrong = RoutingStatus(
        misrouted=9,
        recent_misrouted=2,
        example="POST /v2/payments/{id} was decided for orders-read and served by payments",
    )
    nodes = (status("d01", NOW), status("d02", NOW, routing=wrong))
    (item,) = attention.find(Facts(replace(CALM, nodes=nodes)))
    assert item.title == "2 requests went to another service than decided"
    assert "decided for orders-read and served by payments" in item.detail
    over = (status("d01", NOW, routing=RoutingStatus(misrouted=9)),)
    assert titles(replace(CALM, nodes=over)) == []


def test_unknown_paths_are_shown_above_one_in_a_hundred_of_all_deciders_requests() -> None:
    def shown(*unknown: int) -> list[str]:
        each = [RoutingStatus(recent_decisions=1000, recent_unknown_paths=k) for k in unknown]
        nodes = tuple(status(f"d0{k}", NOW, routing=one) for k, one in enumerate(each))
        return titles(replace(CALM, nodes=nodes))

    assert shown(20, 0) == []
    assert shown(10, 11) == ["1.1% of requests have an unknown path"]
    few = RoutingStatus(recent_decisions=20, recent_unknown_paths=9)
    assert titles(replace(CALM, nodes=(status("d01", NOW, routing=few),))) == []


def test_unanswered_checks_are_shown_above_one_in_a_thousand() -> None:
    def shown(*unasked: int) -> list[str]:
        each = tuple(GatewayStatus(f"g{k}", NOW, 0, 0, 1_000, n) for k, n in enumerate(unasked))
        return titles(replace(CALM, gateways=each))

    assert shown() == shown(1) == shown(2, 0) == []
    assert shown(2) == shown(0, 4) == ["0.2% of requests got no decision in time"]
    assert shown(440) == ["44.0% of requests got no decision in time"]


def test_deciders_without_time_for_the_model_are_named() -> None:
    def of(*late: int) -> list[str]:
        nodes = tuple(
            status(f"d0{k}", NOW, timely=TimelyStatus(n, 0, 1_000, n)) for k, n in enumerate(late)
        )
        return titles(replace(CALM, nodes=nodes))

    assert of(10, 10) == of(20, 0) == []
    assert of(500, 0) == ["25.0% of requests were decided without the model"]
    nodes = (status("d01", NOW), status("d02", NOW, timely=TimelyStatus(9, 0, 100, 9)))
    (item,) = attention.find(Facts(replace(CALM, nodes=nodes)))
    assert item.detail.startswith("d02 had too many at once")


def test_undecided_checks_are_shown_where_no_gateway_tells_of_them() -> None:
    nodes = (status("d01", NOW, timely=TimelyStatus(0, 5, 1_000, 0, 5)),)
    fleet = replace(CALM, nodes=nodes)
    assert titles(fleet) == ["0.5% of requests reached a decider too late"]
    told = replace(fleet, gateways=(GatewayStatus("g", NOW, 0, 0, 1_000, 5),))
    assert titles(told) == ["0.5% of requests got no decision in time"]


def test_no_model_is_said_once_not_per_decider() -> None:
    none = replace(
        CALM, nodes=(status("d01", NOW, ml_state=int(MlState.NO_MODEL)),), config=config(model=None)
    )
    assert titles(none) == ["No model is live"]


def test_a_model_that_gives_no_usable_score_is_said_to_fail() -> None:
    bad = status("d01", NOW, ml_state=int(MlState.BAD_SCORE))
    (item,) = attention.find(Facts(replace(CALM, nodes=(bad, status("d02", NOW)))))
    assert item.title == "ML fails on d01"
    assert "no usable score; the fallback limiter decides where it gives none" in item.detail


def test_ml_off_on_one_decider_says_why() -> None:
    late = replace(CALM, nodes=(status("d01", NOW, ml_state=int(MlState.LATE)), status("d02", NOW)))
    assert [i.detail for i in attention.find(Facts(late))] == [
        "Scoring took longer than its time limit; the fallback limiter decides there."
    ]


def test_a_switch_says_when_it_ends_or_that_it_does_not() -> None:
    soon = replace(CALM, config=config(switches=[Switch("all_ml", until=NOW + 6_720)]))
    assert titles(soon) == ["Switch “All ML” ends in 1 h 52 m"]
    forever = replace(CALM, config=config(switches=[Switch("observe_only")]))
    assert titles(forever) == ["Switch “Observe only” is engaged until someone clears it"]


def test_a_late_feed_is_named() -> None:
    late = replace(
        CALM, nodes=(status("d01", NOW, services=[load("payments", 0.4, feedback_age_s=300)]),)
    )
    assert titles(late) == ["Feedback is late"]


def test_a_feed_is_fresh_when_one_decider_has_it_fresh() -> None:
    nodes = (
        status("d01", NOW, services=[load("auth", 0.2, feedback_age_s=300)]),
        status("d02", NOW, services=[load("auth", 0.3, feedback_age_s=1)]),
    )
    assert titles(replace(CALM, nodes=nodes)) == []


def test_an_overloaded_service_is_named_with_its_load() -> None:
    hot = replace(CALM, nodes=(status("d01", NOW, services=[load("ledger-write", 1.03)]),))
    assert titles(hot) == ["ledger-write is at 103% of its capacity"]


def test_a_backlog_in_the_stream_makes_ingest_lag_grow() -> None:
    stuck = replace(CALM, ingest=IngestStatus(NOW - 90, 1.8, 100, 4), waiting=40)
    assert stuck.ingest_lag_s == 90
    assert titles(stuck) == ["Storing is 1 m 30 s behind"]


def test_an_idle_stream_is_not_late() -> None:
    assert replace(CALM, ingest=IngestStatus(NOW - 900, 1.8, 100, 0)).ingest_lag_s == 1.8


def test_what_could_not_be_stored_is_said_until_somebody_deals_with_it() -> None:
    old = Storing(NOW, buried=2, buried_at=NOW - 900_000)
    assert [i.title for i in attention.find(Facts(CALM, storing=old))] == [
        "2 sampled decisions could not be stored"
    ]
    assert attention.find(Facts(CALM, storing=Storing(NOW))) == []


def test_what_was_lost_in_the_stream_is_counted() -> None:
    found = attention.find(Facts(None, storing=Storing(NOW, lost=1_200)))
    assert "1,200 sampled decisions were lost" in [i.title for i in found]


def test_explanations_that_are_missing_or_wrong_are_counted() -> None:
    assert titles(explained=Explained(40, 2)) == [
        "2 explanations did not add up",
        "40 refusals of the last minute were not explained",
    ]
    assert titles(explained=Explained(2, 0)) == []
    assert titles(explained=Explained(40, 0, stopped=True)) == [
        "No decision was explained for a minute"
    ]


def test_there_are_never_more_than_six() -> None:
    lost = tuple(Lost(f"d{k:02d}", NOW - 40) for k in range(9))
    assert len(titles(replace(CALM, lost=lost))) == 6


def test_a_guardrail_is_inside_close_over_or_not_measured() -> None:
    words = [guardrails.judge(value, 0.01).word for value in (0.001, 0.009, 0.011, None)]
    assert words == ["Inside", "Close", "Over", "Not measured"]
