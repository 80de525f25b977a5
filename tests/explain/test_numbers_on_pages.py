"""A decision's page and REST show the sentences whose numbers other tests trace to the record, and
besides them no number that is not the record's own.
"""

from __future__ import annotations

import html
import math
import re
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from msgspec import structs

from console.pages.decision import page as decision_page
from console.pages.decision import replay_panels
from decider.contracts.vocabulary import Action, Tier
from decider.whatif import replay
from decisions.models import Decision
from explain.comparison import scenarios, timeline
from explain.recourse import search
from explain.text import customer, customer_catalogue
from tests.explain import records, world
from tests.explain.conftest import keep_version
from tests.explain.sentences import Truth, agrees, as_number, check
from tests.pages import shown

pytestmark = pytest.mark.django_db
CLOCK = re.compile(r"\b\d\d:\d\d:\d\d\b")


@pytest.fixture
def kinds(models, document, store) -> list[Decision]:
    """Decisions of every reason, enforced and observed, under both documents."""
    keep_version(records.documents()[2])
    by = {}
    for one in records.made(900, seed=3):
        if len(one.event.signals) == 8 * len(one.seen):
            key = (one.event.reason, one.event.observed, one.event.risk is None)
            by.setdefault(key, one.event)
    store(list(by.values()))
    return [Decision.objects.get(id=e.id.hex()) for e in by.values()]


def text_of(page: str) -> str:
    found = re.sub(r"<(script|style|svg|pre|nav|aside|dialog).*?</\1>", " ", page, flags=re.S)
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", found)))


class Reader:
    """A page's text, from which what is known to be true is taken out until no number is left."""

    def __init__(self, text: str) -> None:
        self.text = text

    def take(self, *sentences: str) -> None:
        """Take out sentences; longer ones first, as they may hold others."""
        for sentence in sorted(sentences, key=len, reverse=True):
            if re.search(r"\d", sentence):
                whole = re.sub(r"\s+", " ", sentence)
                self.text = self.text.replace(whole, " … ")

    def read(self, pattern: str, *true: Truth) -> None:
        """Take out a figure with the words around it; it must be there and true."""
        found = re.search(pattern, self.text)
        assert found, (pattern, self.text)
        for group, truth in zip(found.groups(), true, strict=True):
            assert agrees(group, truth), (pattern, group, truth)
        self.text = f"{self.text[: found.start()]} … {self.text[found.end() :]}"

    def drop(self, *patterns: str) -> None:
        for pattern in patterns:
            self.text = re.sub(pattern, " … ", self.text)


def sentences_of(d: Decision) -> list[str]:
    """All that other tests trace to the record, as pages and REST compose it."""
    made = decision_page.decision_page(d, with_token=True)
    way = replay_panels.way_of(d, decision_page.explained(d))
    said = customer.write_texts(customer.build_case(d))
    cut = made.cut.at if made.cut else None
    return [
        *(
            made.story.chip,
            made.story.http,
            made.story.verdict,
            made.story.lead,
            made.lead_reason,
            made.clause,
        ),
        *(step.detail for step in made.steps),
        *(
            f"{one.before} {one.limit} {one.after} {one.word}"
            for one in replay_panels.limits_of(d, cut)
        ),
        *(line.text for line in timeline.build_timeline(d, made.story.http)),
        *(said.reply, said.line),
        *(t for one in ((*way.ways, *way.missed) if way else ()) for t in (one.short, one.was)),
        *([way.none] if way else []),
    ]


def check_worlds(d: Decision, reader: Reader) -> None:
    """The risks of other worlds are theirs, and figures of the documents are the documents'."""
    told = {
        abs(float(v))
        for config in records.documents().values()
        for v in numbers_in(msgspec.to_builtins(config))
    }
    for one in scenarios.decide_scenarios(d):
        reader.drop(r"identical to the bit", r"As decided (then|now), config \d+")
        note = one.note
        if found := re.match(r"Risk ([\d.]+)(?:, was ([\d.]+)|, no change)?\.", note):
            assert agrees(found[1], Truth(one.risk))
            assert (one.risk == d.risk) == (found[2] is None) or d.risk is None
            if found[2]:
                assert agrees(found[2], Truth(d.risk)) and found[1] != found[2]
            note = note[found.end() :]
        waited = re.fullmatch(
            r"It looks at the plan only, not at risk, ((?:\d+ [smhd] ?)+) to wait\.", note
        )
        if waited is None and not one.level:
            for figure in re.findall(
                r"(?<![\w.])\d[\d,]*(?:\.\d+)?", " ".join((note, *one.because))
            ):
                assert min(abs(as_number(figure) - t) for t in told) < 1e-6, (figure, note)
        # the replay's note is a time of day, read with the others
        reader.take(*(() if one.level else (one.note, *one.because)))


def numbers_in(value: object) -> list[float]:
    if isinstance(value, dict):
        return [n for v in value.values() for n in numbers_in(v)]
    if isinstance(value, list | tuple):
        return [n for v in value for n in numbers_in(v)]
    return [float(value)] if isinstance(value, int | float) else []


def check_columns(d: Decision, reader: Reader, stored: list[Decision]) -> None:
    """Each column of the chart's table adds up the weights of its five seconds."""
    sums: defaultdict[str, Counter[int]] = defaultdict(Counter)
    since = (d.at.timestamp() - 120.0) // 5.0 * 5.0
    near = [o for o in stored if o.app == d.app and since <= o.at.timestamp() < since + 240.0]
    for one in near:
        start = one.at.timestamp() // 5.0 * 5.0
        sums[f"{datetime.fromtimestamp(start, UTC):%H:%M:%S}"][one.action] += (
            1.0 / one.inclusion_probability
        )
    reader.read(r"weighted from (\d+) kept", Truth(float(len(near))))
    for start, by in sums.items():
        figures = [Truth(float(by[int(a)])) for a in Action]
        reader.read(rf"{start} " + " ".join([r"([\d,]+)"] * 5), *figures)


STANDING = (
    r"app_7q2m4kx9|ten_tidewell|orders-read|/v2/orders/\{id\}|\bd01\b",
    r"dec_[0-9a-f]{32}|[0-9a-f]{8}…[0-9a-f]{4}|Feature schema [0-9a-f]{16}|req_[0-9a-f]{12}",
    r"Risk 0 to 1|Requests per 5 s|From, 5 s|risk v1",
    r"\w{3} \d{1,2} \w{3}(?: \d{4})?,",
    r"[\d.]+ K?B(?:ytes)? JSON|[\d.]+ (?:m )?(?:[\d.]+ )?s ago",
)
"""Names, digests and units that hold digits, and how long ago it was."""


def test_a_page_shows_no_number_that_is_not_the_records(kinds, browser) -> None:
    client: Client = browser()
    for d in kinds:
        answer = shown(client.get(reverse("decision", args=[d.name])))
        reader = Reader(text_of(answer))
        check_worlds(d, reader)
        reader.take(*sentences_of(d))
        check_columns(d, reader, kinds)
        if d.value is not None:
            reader.read(r"Worth ([\d.]+) ", Truth(0.5 + d.value))
        reader.read(r"Decided in ([\d.]+) ms", Truth(d.latency_us / 1_000.0))
        reader.read(r"Config cfg (\d+)", Truth(float(d.config_version)))
        if d.inclusion_probability < 1.0:
            reader.read(r"kept 1 in ([\d.]+)", Truth(1.0 / d.inclusion_probability, "close"))
        reader.drop(rf"Catalogue {customer_catalogue.VERSION}\b", *STANDING)
        check_clocks(d, reader)
        take_risks_of_ways(d, reader)
        assert not (left := re.findall(r".{0,40}\d.{0,20}", reader.text)), (d.name, left)


def take_risks_of_ways(d: Decision, reader: Reader) -> None:
    """Take out the risk beside each way back, and the risk at which its action would change."""
    way = replay_panels.way_of(d, decision_page.explained(d))
    for one in (*way.ways, *way.missed) if way else ():
        if one.risk is None:
            continue
        true = [Truth(one.risk)]
        pattern = rf"(?<![\d.,])({re.escape(one.figures[0])})"
        if one.edge is not None:
            pattern += rf" {'below' if one.admits else 'from'} ({re.escape(one.figures[1])})"
            true.append(Truth(edge_of(d, one)))
        reader.read(rf"{pattern}(?![\d.])", *true)


def edge_of(d: Decision, way: search.Way) -> float:
    """Find where the action of the changed record begins or ends, by the test's own scan."""
    config, model = records.documents()[d.config_version], scenarios.find_model(d.model)
    record = search.apply_changes(d.event(), config, way.changes)
    again = replay.decide_under(record, config, model)
    scored = structs.replace(record, risk=again.risk, value=again.value)
    changes = records.changes_of(records.Recorded(scored, config))
    if way.admits:
        return min((c for c in changes if c > again.risk), default=math.nan)
    return max((c for c in changes if c <= again.risk), default=math.nan)


def check_clocks(d: Decision, reader: Reader) -> None:
    """Every time of day lies between the start of its chart and now."""
    first, last = d.at - timedelta(seconds=125), timezone.now() + timedelta(seconds=1)
    moments = {
        f"{first + timedelta(seconds=k):%H:%M:%S}"
        for k in range(int((last - first).total_seconds()) + 1)
    }
    assert set(CLOCK.findall(reader.text)) <= moments
    reader.drop(CLOCK.pattern)


def test_rest_says_what_the_page_says(kinds, browser) -> None:
    client: Client = browser()
    for d in kinds[::3]:
        made = decision_page.decision_page(d, with_token=False)
        base = f"/api/v1/decisions/{d.name}"
        rows = client.get(f"{base}/limits").json()
        listed = replay_panels.limits_of(d, made.cut.at if made.cut else None)
        assert [(r["before"], r["limit"], r["after"], r["stood"]) for r in rows] == [
            (one.before, one.limit, one.after, one.word) for one in listed
        ]
        said = customer.write_texts(customer.build_case(d))
        told = client.get(f"{base}/customer-text").json()
        assert (told["reply"], told["line"], told["api"]) == (said.reply, said.line, said.api)
        record = client.get(f"{base}/record").json()
        seen = records.Recorded(d.event(), records.documents()[d.config_version]).seen
        for name, value in seen.items():
            infinite = {math.inf: "infinity", -math.inf: "-infinity"}.get(value, value)
            assert record["signals"][name] == infinite
        assert record["tier"] == Tier(d.tier).word
        if d.action != Action.ADMIT:
            back = client.get(f"{base}/counterfactual").json()
            way = replay_panels.way_of(d, decision_page.explained(d))
            assert [w["sentence"] for w in back["ways"]] == [w.sentence for w in way.ways]
            assert [[c["after"] for c in w["changes"]] for w in back["ways"]] == [
                [c.after for c in w.changes] for w in way.ways
            ]
    assert world.model()
    check(["{n}"], "3", {"n": Truth(3.0)})
