"""A forecast says when and why, is kept, and is later told whether it was right."""

from __future__ import annotations

import time

import pytest
from django.db import IntegrityError, transaction
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from decider.contracts.config import Override, Switch
from decider.contracts.vocabulary import MlState, Reason
from decisions.models import utc
from explain import tasks
from explain.forecast import outlook, track_record
from explain.models import Forecast
from tests.decisions.factory import event, id_at, signal_vector, unranked, vector
from tests.explain.test_decision_page import text_of
from tests.explain.test_scenarios import publish
from tests.pages import shown

pytestmark = pytest.mark.django_db
APP = "app_7q2m4kx9"


def seen(
    ago: float,
    now: float,
    make=unranked,
    *,
    pace: float = 5.0,
    features: dict | None = None,
    **signals,
):
    moment = now - ago
    base = {"tier": 1, "quota_reset": 40_000.0, "quota_left": 200_000.0}
    return make(
        at=moment,
        id=id_at(moment),
        features=vector(**({"rate_60s": pace} | (features or {}))),
        signals=signal_vector(**(base | signals)),
    )


def test_a_draining_bucket_is_forecast_with_its_reason(document, store) -> None:
    now = time.time()
    store([seen(0.0, now, pace=16.0, tokens=300.0)])
    found = outlook.forecast_app(APP, now)
    assert found.limit == "bucket"
    assert found.minutes == pytest.approx(
        (300 + 299) / 1.0 / 60.0, rel=0.01
    )  # the bucket and the headroom below it
    assert (
        found.sentence
        == "At this pace it is refused in about 10 minutes, because it sends 16 requests a second"
        " and its bucket of 300 is refilled at 15 a second."
    )


def test_without_ml_there_is_no_headroom_and_time_since_the_record_counts(document, store) -> None:
    now = time.time()
    store([seen(60.0, now, pace=16.0, tokens=300.0, ml_state=float(MlState.SWITCHED_OFF))])
    store([])
    found = outlook.forecast_app(APP, now)
    assert found.minutes == pytest.approx(
        (300 - 60 + 299) / 60.0, rel=0.01
    )  # recorded with ML live in its column
    off = seen(30.0, now, pace=16.0, tokens=300.0)
    off.ml_state = int(MlState.SWITCHED_OFF)
    store([off])
    assert outlook.forecast_app(APP, now).minutes == pytest.approx((300 - 30 - 1) / 60.0, rel=0.01)


def test_an_override_that_stretches_the_plan_is_reckoned_with(document, store) -> None:
    from msgspec import structs

    now = time.time()
    store([seen(0.0, now, pace=16.0, tokens=300.0)])
    publish(
        structs.replace(
            document,
            version=2,
            overrides=[Override(id="o", kind="app", subject=APP, until=9e9, multiplier=2.0)],
        )
    )
    assert outlook.forecast_app(APP, now).state == "clear"


def test_a_quota_that_ends_within_the_hour_comes_first(document, store) -> None:
    now = time.time()
    store([seen(0.0, now, pace=10.0, quota_left=7_200.0, quota_limit=2_000_000)])
    found = outlook.forecast_app(APP, now)
    assert (found.limit, round(found.minutes)) == ("quota", 12)
    assert (
        "refused in about 12 minutes, because about 7,200 of its 2,000,000 requests a day are left"
        in found.sentence
    )


def test_while_more_may_be_leased_the_quota_is_what_was_not_used_of_it(document, store) -> None:
    now = time.time()
    plan = {"quota_left": 300.0, "quota_limit": 2_000_000, "lease_due": 1.0, "tokens": 300.0}
    store([seen(5.0, now, pace=10.0, features={"quota_used": 0.5}, **plan)])
    assert outlook.forecast_app(APP, now).state == "clear"
    store([seen(0.0, now, pace=10.0, features={"quota_used": 0.9964}, **plan)])
    found = outlook.forecast_app(APP, now)
    assert (found.limit, round(found.minutes)) == ("quota", 12)


def test_a_risk_that_rises_is_followed_to_where_the_action_changes(document, store) -> None:
    now = time.time()
    calm = {
        "features": vector(rate_60s=5.0, cohort_prior=0.4),
        "action": 0,
        "value": 0.5,
        "retry_after": 0.0,
    }
    calm["signals"] = signal_vector(tier=1, tokens=200, quota_left=1e6, quota_reset=4e4)
    rising = [
        event(at=now - 10 * k, id=id_at(now - 10 * k), risk=0.3 - 0.012 * k, **calm)
        for k in range(20)
    ]
    store(rising)
    found = outlook.forecast_app(APP, now)
    assert found.limit == "risk"
    assert 0.5 < found.minutes < 10
    assert "looks more and more like abuse" in found.sentence


def test_calm_refused_and_unknown_are_told_apart(document, store) -> None:
    now = time.time()
    assert outlook.forecast_app(APP, now).state == "unknown"
    store([seen(20.0, now)])
    assert outlook.forecast_app(APP, now).state == "clear"
    store(
        [event(at=now - 1, id=id_at(now - 1)), event(at=now, id=id_at(now))]
        + [event(at=now, id=id_at(now)) for _ in range(60)]
    )
    assert outlook.forecast_app(APP, now).state == "refused"


@pytest.mark.parametrize(
    ("minutes", "refused_after", "right"),
    [
        (12.0, 12.5, True),
        (12.0, 6.0, True),
        (12.0, 18.0, True),
        (12.0, 4.0, False),
        (12.0, None, False),
        (None, None, True),
        (None, 30.0, False),
        (1.0, 2.9, True),
        (1.0, 0.0, True),
    ],
)
def test_right_means_half_to_one_and_a_half_times_the_time_said(
    minutes, refused_after, right
) -> None:
    assert (
        track_record.was_right("clear" if minutes is None else "soon", minutes, refused_after)
        is right
    )


@given(st.floats(0.0, 60.0), st.floats(0.0, 200.0))
def test_a_refusal_after_the_last_moment_never_makes_a_forecast_right(minutes, after) -> None:
    assert track_record.was_right("soon", minutes, after) <= (
        after <= track_record._latest_minute(minutes)
    )


def test_a_forecast_is_kept_once_a_minute_and_settled_when_due(document, store) -> None:
    then = time.time() - 4_000.0
    store([seen(0.0, then, pace=20.0, tokens=300.0)])
    found = outlook.forecast_app(APP, then)
    assert track_record.store_forecast(APP, found, then) is not None
    assert (
        track_record.store_forecast(
            APP, found, then + 1.0 if int((then + 1) // 60) == int(then // 60) else then
        )
        is None
    )
    assert track_record.settle_due(then + 60.0) == 0
    store([event(at=then + 60 * found.minutes + 20, id=id_at(then + 60 * found.minutes + 20))])
    assert track_record.settle_due(time.time()) == 1
    assert track_record.settle_due(time.time()) == 0
    kept = Forecast.objects.get()
    assert kept.right
    assert kept.refused_after == pytest.approx(found.minutes + 20 / 60, abs=0.01)
    assert (kept.refusals, kept.chance) == (2.0, 0.5)
    said = track_record.summarise_record(APP, time.time()).soon
    assert (said.right, said.settled, said.own, said.interval) == (1, 1, False, None)
    assert said.error_minutes == pytest.approx(20 / 60, abs=0.01)
    assert said.sentence.startswith(
        "“Refused soon” came true 1 of 1 times, by all apps’ of the last 7 days; half of the times"
        " said"
    )


def test_an_app_that_was_refused_lately_is_not_called_clear(document, store) -> None:
    now = time.time()
    store([seen(20.0, now), event(at=now - 1_800, id=id_at(now - 1_800))])
    assert outlook.forecast_app(APP, now).state == "clear"  # one may have been chance
    store(
        [
            event(at=now - k, id=id_at(now - k), reason=int(Reason.SERVICE_OVERLOADED))
            for k in (1_200, 1_500)
        ]
    )
    found = outlook.forecast_app(APP, now)
    assert (found.state, found.minutes) == ("some", None)
    assert (
        found.sentence
        == "Some of its requests are refused now and then: about 6 (3 to 13) in the last hour, so"
        " expect some in the next."
    )
    assert (
        found.because
        == "Most often because the service behind it is overloaded, or was a moment ago."
    )
    assert outlook.forecast_app(APP, now + 3_000.0).state == "unknown"


@pytest.mark.parametrize("again", [True, False])
def test_some_come_true_when_any_is_refused_within_the_hour(document, store, again) -> None:
    then = time.time() - 4_000.0
    store([seen(20.0, then), *(event(at=then - k, id=id_at(then - k)) for k in (1_200, 1_500))])
    track_record.store_forecast(APP, outlook.forecast_app(APP, then), then)
    store([event(at=then + 3_000, id=id_at(then + 3_000))] if again else [])
    track_record.settle_due(time.time())
    said = track_record.summarise_record(APP, time.time())
    assert (said.some.right, said.some.settled) == (int(again), 1)
    assert (said.soon.settled, said.clear.settled) == (0, 0)


def test_one_that_slowed_down_before_its_time_came_says_nothing_about_forecasts(
    document, store
) -> None:
    then = time.time() - 4_000.0
    store([seen(0.0, then, pace=20.0, tokens=300.0)])
    found = outlook.forecast_app(APP, then)
    track_record.store_forecast(APP, found, then)
    store([seen(-30.0, then, pace=20.0), seen(-60.0, then, pace=2.0), seen(-61.0, then, pace=2.0)])
    track_record.settle_due(time.time())
    kept = Forecast.objects.get()
    assert (kept.right, kept.slowed, kept.pace) == (None, True, 20.0)
    said = track_record.summarise_record(APP, time.time()).soon
    assert (said.settled, said.unsettled, said.slowed) == (0, 0, 1)
    assert said.sentence.endswith("is not known. 1 more had slowed down before.")


def test_one_that_kept_its_pace_and_was_not_refused_was_wrong(document, store) -> None:
    then = time.time() - 4_000.0
    store([seen(0.0, then, pace=20.0, tokens=300.0)])
    track_record.store_forecast(APP, outlook.forecast_app(APP, then), then)
    store([seen(-k, then, pace=19.0) for k in (30.0, 60.0, 90.0)])
    track_record.settle_due(time.time())
    assert (Forecast.objects.get().right, Forecast.objects.get().slowed) == (False, False)


def test_one_that_did_not_come_true_is_counted_as_wrong(document, store) -> None:
    then = time.time() - 4_000.0
    store([seen(0.0, then, pace=20.0, tokens=300.0)])
    track_record.store_forecast(APP, outlook.forecast_app(APP, then), then)
    track_record.settle_due(time.time())
    assert Forecast.objects.get().right is False
    assert Forecast.objects.get().refused_after is None


def test_what_was_only_recorded_in_observe_only_mode_is_no_refusal(document, store) -> None:
    then = time.time() - 4_000.0
    store([seen(0.0, then)])
    track_record.store_forecast(APP, outlook.forecast_app(APP, then), then)
    store([event(at=then + 60, id=id_at(then + 60), observed=True)])
    track_record.settle_due(time.time())
    kept = Forecast.objects.get()
    assert (kept.right, kept.refused_after, kept.refusals) == (True, None, 0.0)


def test_in_observe_only_mode_nothing_is_forecast(document, store) -> None:
    now = time.time()
    store([event(at=now - k, id=id_at(now - k), observed=True) for k in range(9)])
    found = outlook.forecast_app(APP, now)
    assert found.state == "unknown"
    assert "observe-only" in found.sentence


@pytest.mark.parametrize(("p", "right"), [(0.5, True), (0.05, None)])
def test_none_kept_proves_nothing_where_few_are_kept(document, store, p, right) -> None:
    """Another app of its tier was refused then; how many of those were kept says what would have
    been seen.
    """
    then = time.time() - 4_000.0
    store(
        [
            seen(0.0, then),
            event(app="app_other", at=then + 90, id=id_at(then + 90), inclusion_probability=p),
        ]
    )
    track_record.store_forecast(APP, outlook.forecast_app(APP, then), then)
    track_record.settle_due(time.time())
    kept = Forecast.objects.get()
    assert kept.chance == pytest.approx(p)
    assert kept.right is right
    said = track_record.summarise_record(APP, time.time()).clear
    assert (said.settled, said.unsettled) == ((1, 0) if right else (0, 1))
    assert right or "1 more cannot be settled" in said.sentence


@given(st.floats(0.001, 1.0))
def test_ten_refusals_would_show_nineteen_times_in_twenty_or_there_is_no_verdict(p) -> None:
    missed = (1.0 - p) ** track_record.LEAST_REFUSALS
    assert track_record.would_show(p) == (1.0 - missed >= 0.95)


def settled(
    app: str, hour: int, *, minutes: float | None, after: float | None, minute: int = 0
) -> None:
    at, state = (
        utc(time.time() // 3600 * 3600 - 3600 * (hour + 2) + 60 * minute),
        "clear" if minutes is None else "soon",
    )
    Forecast.objects.create(
        app=app,
        made_at=at,
        minute=int(at.timestamp() // 60),
        state=state,
        minutes=minutes,
        limit="",
        because="",
        due_at=at,
        settled_at=at,
        refused_after=after,
        right=track_record.was_right(state, minutes, after),
        refusals=0.0,
        chance=0.5,
    )


def test_calm_apps_do_not_make_the_record_of_soon_look_good() -> None:
    for hour in range(20):
        settled(f"app_calm{hour}", hour, minutes=None, after=None)
    for hour in range(12):
        settled("app_busy", hour, minutes=10.0, after=12.0 if hour < 3 else None)
    found = track_record.summarise_record("app_other", time.time())
    assert (found.soon.right, found.soon.settled) == (3, 12)
    assert (found.clear.right, found.clear.settled) == (20, 20)
    assert found.soon.interval == pytest.approx((0.089, 0.532), abs=0.001)  # Wilson
    assert found.soon.error_minutes == pytest.approx(2.0)
    assert "came true 3 of 12 times, 25% (95% interval 9% to 53%)" in found.soon.sentence
    assert "stayed so 20 of 20 times, 100% (95% interval 84% to 100%)" in found.clear.sentence
    assert track_record.summarise_record("app_busy", time.time()).soon.own
    assert not track_record.summarise_record("app_busy", time.time()).clear.own


def test_forecasts_of_one_app_and_hour_count_once() -> None:
    for minute in range(0, 60, 5):
        settled(APP, 1, minutes=None, after=None, minute=minute)
    assert track_record.summarise_record(APP, time.time()).clear.settled == 1


def test_the_database_refuses_a_verdict_without_a_settlement() -> None:
    row = {
        "app": APP,
        "made_at": "2026-01-01T00:00Z",
        "minute": 1,
        "limit": "",
        "because": "",
        "due_at": "2026-01-01T01:00Z",
    }
    row |= {"state": "soon"}
    with pytest.raises(IntegrityError), transaction.atomic():
        Forecast.objects.create(**row, right=True)
    with pytest.raises(IntegrityError), transaction.atomic():
        Forecast.objects.create(**row, minutes=-1.0)
    with pytest.raises(IntegrityError), transaction.atomic():
        Forecast.objects.create(**row, settled_at="2026-01-01T01:00Z", right=True, slowed=True)
    with pytest.raises(IntegrityError), transaction.atomic():
        Forecast.objects.create(**(row | {"state": "refused"}))


def test_the_task_forecasts_the_busiest_apps_and_settles(document, store) -> None:
    now = time.time()
    store([seen(1.0, now, pace=16.0, tokens=300.0)])
    assert tasks.look_ahead() == {"settled": 0, "made": 1, "forgotten": 0}


@pytest.mark.parametrize("htmx", [True, False])
def test_the_panel_says_it_and_how_far_to_trust_it(document, store, browser, htmx) -> None:
    store([seen(0.0, time.time(), pace=16.0, tokens=300.0)])
    where = reverse("ui-forecast", args=[APP])
    response = browser().get(where, headers={"hx-request": "true"} if htmx else {})
    assert "refused in about 10 minutes" in text_of(response)
    assert (
        "No “Clear” of the last 7 days can be settled yet, so how far to trust it is not known"
        in text_of(response)
    )
    assert ("<html" in shown(response)) != htmx
    assert Forecast.objects.count() == 1
    assert browser("").get(where).status_code == 403
    assert browser("sre").post(where).status_code == 405


def test_a_switched_off_ml_is_not_mistaken_for_the_apps_doing(document, store) -> None:
    from msgspec import structs

    now = time.time()
    store([seen(0.0, now)])
    publish(structs.replace(document, version=2, switches=[Switch("all_ml")]))
    assert outlook.forecast_app(APP, now).state == "clear"
