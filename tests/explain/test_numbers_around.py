"""Every number of the timeline, of the comparison with peers and of the forecast follows from the
stored records, recomputed here from the records alone.
"""

from __future__ import annotations

import math
import re
import time
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decider.contracts.event import Event
from decider.contracts.features import FEATURES, INDEX
from decider.contracts.vocabulary import REASONS, Action, MlState, Reason
from decisions.models import Decision
from explain.comparison import peers, timeline
from explain.forecast import outlook, track_record
from explain.text import verdict
from tests.decisions.factory import event, id_at, signal_vector, unranked, vector
from tests.explain import records
from tests.explain.sentences import Truth, as_number, check, read
from tests.explain.test_one_cause import is_shown

Z95 = 1.959964


def total(events: list[Event]) -> dict[str, Truth]:
    """An estimated count and its interval, from the inclusion probabilities."""
    weights = [1.0 / e.inclusion_probability for e in events]
    count, variance = sum(weights), sum(w * w - w for w in weights)
    spread = Z95 * Z95 * variance / count if count else 0.0
    half = math.sqrt(spread * count + spread * spread / 4)
    return {
        "count": Truth(count),
        "low": Truth(max(len(events), count + spread / 2 - half)),
        "high": Truth(max(len(events), count + spread / 2 + half)),
    }


COUNT = "[about ]{count}[ ({low} to {high})]"


# -- timeline

ROUND = (
    "This decision: <action>, passed on to the service[, observe-only]",
    "This decision: <action>, HTTP {status}[, Retry-After {wait}]",
    "First refusal kept: <action>",
    "Burst bucket is empty from here to this decision",
    "Same endpoint again, {later} s later: <action>",
    f"Last kept refusal, of {COUNT} after this decision",
)


@pytest.mark.django_db
def test_every_number_of_a_timeline_follows_from_the_records(store) -> None:
    luck, at, stored = np.random.default_rng(4), time.time() - 900.0, []
    made = [one.event for one in records.made(600, seed=9)]
    for k, e in enumerate(made):
        moment = at + float(luck.choice([k * 0.011, k * 0.9]))
        e.id, e.at, e.app = id_at(moment), moment, f"app_{k % 8}"
        stored.append(e)
    store(stored)
    found: Counter[str] = Counter()
    for e in stored[::5]:
        d = Decision.objects.get(id=e.id.hex())
        after = sorted(
            (
                o
                for o in stored
                if o.app == e.app and o.id > e.id and o.at < d.at.timestamp() + timeline.SIDE_S
            ),
            key=lambda o: o.id,
        )[: timeline.MOST_ROWS]
        other = next(
            (
                o
                for o in after
                if (o.method, o.endpoint) == (e.method, e.endpoint)
                and (o.action == 0) != (e.action == 0)
            ),
            e,
        )
        true = total([o for o in after if o.action != Action.ADMIT]) | {
            "later": Truth(round(other.at * 1e6) / 1e6 - round(e.at * 1e6) / 1e6, "unlike"),
            "status": Truth(float((200, 429, 429, 503, 403)[e.action])),
            "wait": Truth(float(max(1, math.ceil(e.retry_after)))),
        }
        for line in timeline.build_timeline(d, verdict.http_answer(d)):
            found[check(ROUND, line.text, true)] += 1
    assert all(found[pattern] for pattern in ROUND)


# -- peers


@pytest.mark.django_db
def test_every_number_about_peers_follows_from_their_records(store) -> None:
    luck, at, stored = np.random.default_rng(8), time.time() - 900.0, []
    names = [f.name for f in FEATURES if f.source in ("counters", "feedback")]
    for k in range(260):
        row = np.abs(luck.lognormal(0.0, 1.0, len(FEATURES))).astype(np.float32)
        row[luck.random(len(row)) < 0.05] = np.nan
        moment = at - float(luck.uniform(0, 3_000))
        p = float(luck.choice([1.0, 0.5, 0.02]))
        stored.append(
            event(
                at=moment,
                id=id_at(moment),
                app=f"app_{k % 23}",
                features=row.tobytes(),
                inclusion_probability=p,
            )
        )
    store(stored)
    newest = max(stored, key=lambda e: e.at)
    d = Decision.objects.get(id=newest.id.hex())
    others = [e for e in stored if e.app != newest.app]
    ranks: Counter[str] = Counter()
    for k in range(0, len(names) - 3, 4):
        seen = peers.compare_with_peers(d, tuple(names[k : k + 4]))
        assert (seen.apps, seen.kept) == (len({e.app for e in others}), len(others))
        assert seen.seconds == pytest.approx(newest.at - min(e.at for e in others), abs=1e-3)
        for row in seen.rows:
            ranks[re.sub(r"[\d.]+", "#", row.rank)] += 1
            check_peer(row, newest, others)
    assert set(ranks) >= {"", "top #%", "bottom #%"}


def check_peer(row: peers.PeerComparison, own: Event, others: list[Event]) -> None:
    feature = next(f for f in FEATURES if f.label == row.label)
    k = INDEX[feature.name]
    value = float(np.frombuffer(own.features, "<f4")[k])
    sums: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for e in others:
        one = float(np.frombuffer(e.features, "<f4")[k])
        if not math.isnan(one):
            sums[e.app].append((one, 1.0 / e.inclusion_probability))
    means = sorted(sum(v * w for v, w in rows) / sum(w for _, w in rows) for rows in sums.values())
    assert is_shown(feature, row.value, value), row
    assert is_shown(feature, row.median_text, float(np.median(means))), row
    above = sum(mean >= value for mean in means)
    below = sum(mean <= value for mean in means)
    share = min(above, below) / len(means)
    true = {"all": Truth(len(means) + 1.0), "share": Truth(max(1.0, 100.0 * share))}
    check(["", "[highest][lowest] of {all}", "[top][bottom] {share}%"], row.rank, true)
    word = "highest" if not above else "lowest" if not below else ""
    side = "top" if above <= below else "bottom"
    assert row.rank.startswith(word or ("" if share > 0.25 else side)), row


# -- forecast

PACES = "{pace} request[s] a <per>"
FORECAST = (
    "No request of it was kept in the last five minutes, so nothing is forecast.",
    "Decisions are recorded and not enforced (observe-only), so it is not refused.",
    "It is being refused now: at least half of its last minute’s requests.",
    "At this pace it is not refused within the next hour.",
    "At this pace it is refused in [less than a minute][about {minutes} minute[s]], because it"
    f" sends {PACES} and its bucket of {{burst}} is refilled at {{rate}} a second.",
    "At this pace it is refused in [less than a minute][about {minutes} minute[s]], because about"
    " {left} of its {quota} requests a day are left.",
    "At this pace it is refused in [less than a minute][about {minutes} minute[s]], because its"
    " traffic looks more and more like abuse.",
    f"Some of its requests are refused now and then: {COUNT} in the last hour, so expect some in"
    " the next.",
)
BECAUSE = (f"It sends {PACES}.", *(f"Most often because {r.text}." for r in REASONS.values()), "")


@pytest.mark.django_db
def test_every_number_of_a_forecast_follows_from_the_records(document, store) -> None:
    luck, now = np.random.default_rng(3), time.time()
    stored: list[Event] = []
    of: dict[str, list[Event]] = {}
    for n in range(160):
        app = f"app_{n}"
        kept = (rising, refused)[n % 2] if n < 16 else kept_of
        of[app] = kept(luck, app, now)
        stored += of[app]
    store(stored)
    found: Counter[str] = Counter()
    for app, mine in of.items():
        told = outlook.forecast_app(app, now)
        newest = max(mine, key=lambda e: e.id)
        true = forecast_truths(newest, mine, document, now, told.limit)
        pattern = check(FORECAST, told.sentence, true)
        _, shown = read(FORECAST, told.sentence)
        found[pattern] += 1
        if "rate" in shown:
            pace = as_number(shown["pace"]) / (1 if "s a second and" in told.sentence else 60)
            assert pace > as_number(shown["rate"]) or "1 request a second and" in told.sentence
            assert told.minutes == pytest.approx(true["minutes"].value, abs=0.02)
        if told.state != "soon":
            check(BECAUSE, told.because, true)
    assert set(found) == set(FORECAST[1:])


def kept_of(luck: np.random.Generator, app: str, now: float) -> list[Event]:
    """The kept decisions of one app: some refused in the last hour, the newest admitted."""
    pace = float(luck.choice([0.004, 0.4, 5.0, 15.1, 15.2, 16.0, 60.0]))
    tokens = float(luck.choice([300.0, 12.4, -120.0, -280.0]))
    left = float(luck.choice([200_000.0, 900.0, 0.4]))
    found = []
    for k in range(int(luck.choice([0, 0, 1, 3, 7]))):
        moment = now - 400.0 - 90.0 * k
        found.append(
            event(
                app=app,
                at=moment,
                id=id_at(moment),
                inclusion_probability=float(luck.choice([1.0, 0.5, 0.1])),
                reason=int(luck.choice([Reason.RISK_HIGH, Reason.TOKENS_EMPTY])),
            )
        )
    moment = now - float(luck.choice([1.0, 25.0, 200.0]))
    signals = signal_vector(
        tier=1,
        tokens=tokens,
        quota_left=left,
        quota_limit=2_000_000.0,
        quota_reset=40_000.0,
        lease_due=float(luck.choice([0.0, 1.0])),
        headroom_withheld=float(luck.choice([0.0, 150.0, 300.0])),
    )
    found.append(
        unranked(
            app=app,
            at=moment,
            id=id_at(moment),
            observed=luck.random() < 0.03,
            signals=signals,
            features=vector(rate_60s=pace, quota_used=float(luck.choice([0.2, 0.9999]))),
        )
    )
    return found


def rising(luck: np.random.Generator, app: str, now: float) -> list[Event]:
    """The kept decisions of an app whose risk rises, half a minute apart."""
    calm = signal_vector(tier=1, tokens=300.0, quota_reset=40_000.0, quota_left=200_000.0)
    slope = float(luck.choice([0.004, 0.02]))
    return [
        event(
            app=app,
            at=now - 30.0 * (k + 1),
            id=id_at(now - 30.0 * (k + 1)),
            action=int(Action.ADMIT),
            retry_after=0.0,
            risk=0.4 - slope * k + float(luck.uniform(-0.002, 0.002)),
            inclusion_probability=float(luck.choice([0.1, 0.02])),
            signals=calm,
            features=vector(rate_60s=5.0, cohort_prior=0.9),
        )
        for k in range(14)
    ]


def refused(luck: np.random.Generator, app: str, now: float) -> list[Event]:
    """One refusal just now."""
    return [event(app=app, at=now - 2.0, id=id_at(now - 2.0))]


def until_cut(mine: list[Event], document) -> float:
    """Minutes until the line of risks, fitted by weighted least squares, meets the threshold."""
    newest = max(mine, key=lambda e: e.id)
    t = np.array([(e.at - newest.at) / 60.0 for e in mine])
    risk = np.array([e.risk for e in mine])
    weights = np.array([1.0 / e.inclusion_probability for e in mine])
    slope, level = np.polyfit(t, risk, 1, w=np.sqrt(weights))
    changes = records.changes_of(records.Recorded(newest, document))
    return (min(c for c in changes if c > newest.risk) - level) / slope


def forecast_truths(
    newest: Event, mine: list[Event], document, now: float, limit: str
) -> dict[str, Truth]:
    seen = dict(zip(records.S, np.frombuffer(newest.signals, "<f8").tolist(), strict=True))
    row = np.frombuffer(newest.features, "<f4")
    tier, pace, age = document.tiers[newest.tier], float(row[INDEX["rate_60s"]]), now - newest.at
    headroom = tier.burst - seen["headroom_withheld"]
    floor = 1.0 - headroom if newest.ml_state == MlState.LIVE else 1.0
    tokens = min(tier.burst, seen["tokens"]) + (tier.rate - pace) * age
    used = float(row[INDEX["quota_used"]]) * seen["quota_limit"]
    held = seen["quota_left"]
    left = held if seen["lease_due"] == 0.0 else max(held, tier.quota_per_day - used)
    left = max(0.0, left - pace * age)
    drained = max(0.0, (tokens - floor) / (pace - tier.rate) / 60.0) if pace > tier.rate else 1e9
    minutes = drained if limit == "bucket" else left / pace / 60.0
    if limit == "risk":
        minutes = until_cut(mine, document)
    lately = [e for e in mine if e.action != Action.ADMIT and e.at >= now - 3_600.0]
    return total(lately) | {
        "minutes": Truth(minutes),
        "pace": Truth(pace if pace >= 0.9995 else 60.0 * pace, "close"),
        "burst": Truth(tier.burst, "exact"),
        "rate": Truth(tier.rate, "exact"),
        "left": Truth(left),
        "quota": Truth(tier.quota_per_day, "exact"),
    }


RECORD = (
    "No “<what>” of the last {days} days can be settled yet, so how far to trust it is not known."
    "[ {slowed} more had slowed down before.][ {unsettled} more cannot be settled: too few refusals"
    " were kept.]",
    "“<what>” <did> {right} of {settled} times[, {share}% ({sure}% interval {low}% to {high}%)], by"
    " <whose> of the last {days} days[; half of the times said were off by at most {off} minutes]."
    "[ {slowed} more had slowed down before.][ {unsettled} more cannot be settled: too few refusals"
    " were kept.]",
)


def wilson(right: int, settled: int) -> tuple[float, float]:
    share, z2 = right / settled, Z95 * Z95
    middle = (right + z2 / 2) / (settled + z2)
    half = Z95 / (settled + z2) * math.sqrt(right * (1 - share) + z2 / 4)
    return max(0.0, middle - half), min(1.0, middle + half)


@given(
    state=st.sampled_from(["soon", "some", "clear"]),
    settled=st.integers(0, 3_000),
    part=st.floats(0, 1),
    more=st.tuples(st.integers(0, 2_000), st.integers(0, 2_000)),
    own=st.booleans(),
    off=st.none() | st.floats(0, 90),
)
def test_every_number_of_how_often_forecasts_were_right_is_counted(
    state, settled, part, more, own, off
) -> None:
    right = round(part * settled)
    one = track_record.StateRecord(state, right, settled, *more, own, off)
    low, high = wilson(right, settled) if settled else (0.0, 0.0)
    true = {
        "right": Truth(right),
        "settled": Truth(settled),
        "unsettled": Truth(more[0]),
        "slowed": Truth(more[1]),
        "days": Truth(7.0),
        "share": Truth(100.0 * right / settled if settled else math.nan),
        "sure": Truth(95.0),
        "low": Truth(100.0 * low),
        "high": Truth(100.0 * high),
        "off": Truth(off if off is not None else math.nan),
    }
    check(RECORD, one.sentence, true)
    assert (settled >= 10) == ("interval" in one.sentence)
