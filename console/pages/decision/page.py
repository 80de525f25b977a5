"""Everything that a decision page shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from django.utils import timezone

from console.display import columns
from console.pages.decision import record_json
from control.config import documents
from control.directory import apps as directory
from control.directory.apps import KnownApp
from decider.contracts import units
from decider.contracts.artifact import ArtifactError
from decider.contracts.config import Config
from decider.contracts.event import Event
from decider.contracts.features import SCHEMA
from decider.contracts.units import one_in
from decider.contracts.vocabulary import Action, Reason, Stage, Tier
from decider.policy import BASE_WORTH, LONGEST_WAIT_S
from decider.refusal.findings import findings
from decider.whatif import replay
from decider.whatif.replay import ReplayError, Thresholds
from decisions import reason_text
from decisions.counts import aggregate
from decisions.models import Decision, utc
from decisions.search import lookup
from explain.comparison import scenarios
from explain.models import Explanation, ModelCheck
from explain.shap import backlog, model_files, waterfall
from explain.shap.waterfall import Waterfall
from explain.text import reason_codes, stages, verdict
from explain.text.stages import TraceStep

# Chosen: two minutes either side show a burst whole, in columns wide enough to see (48 in all).
SIDE_S, BUCKET_S = 120.0, 5.0
# For `standing_wait`. Chosen: nobody asks where a wait under 5 s comes from; waits that end within
# 0.2 s of each other are the same, because records round; the last fifty answers are enough.
SHORT_WAIT_S, SAME_END_S, EARLIER_TOLD = 5.0, 0.2, 50
# Risk points from which a finding is listed beside another cause. Chosen: a reader who sees +0.02
# below a rule that decided takes it for a second cause.
LEAST_EFFECT = 0.03
# Seconds back within which an earlier answer may have told the wait: the longest wait, and a tenth
# more for its jitter.
TOLD_WITHIN_S = 1.1 * LONGEST_WAIT_S


@dataclass(frozen=True, slots=True)
class Explained:
    """Whether the score of a decision was explained, and how."""

    state: str
    """ready, pending, impossible, or none when no model was asked."""
    error: str = ""
    explanation: Explanation | None = None
    fall: Waterfall | None = None
    reasons: tuple[reason_codes.ReasonCode, ...] = ()

    @property
    def codes(self) -> list[str]:
        """Reason codes of all findings, strongest first, in the decider's own order.

        Empty while the score is not explained.
        """
        if self.fall is None:
            return []
        fall = self.fall
        return [f.code for f in findings(fall.contributions, fall.values, fall.typical)]

    @property
    def usual_raises(self) -> list[tuple[str, float]]:
        """Features that raised the risk but are no reason, because their values are usual: label
        and risk points, the largest first.
        """
        return reason_codes.list_usual(self.fall) if self.fall else []


@dataclass(frozen=True, slots=True)
class Cut:
    """The threshold nearest to the decision's risk."""

    at: float
    action: int
    """The action that begins there."""

    @property
    def percent(self) -> float:
        """Place of the threshold on the scale of risk, percent."""
        return round(self.at * 100, 2)

    @property
    def anchor(self) -> str:
        """Which end of its label stands at the cut (SVG text-anchor)."""
        # Near an end of the axis the label must run inwards, or it is cut off.
        return "start" if self.at < 0.12 else "end" if self.at > 0.88 else "middle"


@dataclass(frozen=True, slots=True)
class Band:
    """A range of risk with one action, in percent of the scale."""

    word: str
    start: float
    """Risk from which it applies."""
    start_text: str
    """The same in figures, with as many decimals as tell it from the decision's risk."""
    x: float
    width: float
    text: str
    """Label under its beginning, empty where there is no room."""
    text_x: float
    anchor: str


def explained(d: Decision) -> Explained:
    """Return what is known of a decision's score."""
    if d.raw_risk is None:
        return Explained("none")
    # In another schema the features have other places, so their names would be wrong.
    if d.feature_schema != SCHEMA:
        return Explained(
            "impossible",
            f"It was recorded under feature schema {d.feature_schema[:16]}; this console reads"
            f" {SCHEMA}.",
        )
    try:
        artifact = model_files.load_artifact(d.model)
    except ArtifactError as error:
        return Explained("impossible", f"Its model cannot be read here: {error}.")
    found = Explanation.objects.filter(decision=d.id, at=d.at).first()
    if found is None:
        return Explained("pending")
    fall = waterfall.build_from_explanation(found, d, artifact)
    return Explained("ready", "", found, fall, tuple(reason_codes.rank_reasons(fall)))


def named_feature(d: Decision, known: Explained) -> str:
    """Return the feature of a decision's strongest reason where the risk decided, else ""."""
    decided = Reason(d.reason) == Reason.RISK_HIGH
    return known.reasons[0].feature.name if decided and known.reasons else ""


def thresholds(event: Event, config: Config | None) -> Thresholds | None:
    """Return the risks at which the action would have changed.

    None when no model was asked, the config is not kept, or the record cannot be decided again.
    """
    try:
        return replay.threshold(event, config) if config else None
    except ReplayError:
        return None


def cut_of(d: Decision, found: Thresholds | None) -> Cut | None:
    """Return the threshold that a page draws.

    For a refusal it is where its action begins, for an admit where the next action begins.
    """
    if found is None:
        return None
    at = found.down if Action(d.action) == Action.ADMIT or found.up is None else found.up
    # A page cannot draw a threshold at which no action begins.
    action = next((a for r, a in found.bands if r == at), None)
    return Cut(at, action) if at is not None and action is not None else None


def drawn_cut(d: Decision) -> Cut | None:
    """Return the threshold that the page of a decision draws, without the rest of the page."""
    return cut_of(d, thresholds(d.event(), documents.config(d.config_version)))


def scale_figures(risk: float | None, starts: Sequence[float]) -> tuple[str, ...]:
    """Return a risk, and the risks at which bands begin, as texts that tell them apart. The first
    of `starts` is 0.
    """
    shown, *rest = units.cut_figures(risk or 0.0, *starts[1:])
    return shown, "0.00", *rest


def bands(
    found: Thresholds | None, risk: float | None, decisive: float | None = None
) -> tuple[Band, ...]:
    """Return the ranges of risk with the action that each leads to, lowest first. `risk` is the
    decision's own. `decisive` is the threshold that the page names; its label is always shown.
    """
    if found is None:
        return ()
    out: list[Band] = []
    last, labels = -100.0, scale_figures(risk, [start for start, _ in found.bands])[1:]
    for k, (start, action) in enumerate(found.bands):
        end = found.bands[k + 1][0] if k + 1 < len(found.bands) else 1.0
        x = round(start * 100, 2)
        anchor = "start" if k == 0 else "end" if x > 80 else "middle"
        # Percent of the axis that a label needs; the last one is set to the left of its line.
        room = x - last >= (30 if anchor == "end" else 24)
        if start == decisive and not room:
            out = [replace(band, text="") if band.text_x > x - 30 else band for band in out]
            room = True
        word = Action(action).word
        text = (word.capitalize() if k == 0 else f"{word.capitalize()} {labels[k]}") if room else ""
        last = x if text else last
        out.append(
            Band(
                word,
                start,
                labels[k],
                x,
                round((end - start) * 100, 2),
                text,
                100.0 if x > 92 else x,
                anchor,
            )
        )
    return tuple(out)


def steps(d: Decision, event: Event, config: Config | None) -> list[TraceStep]:
    """Return the stage trace; [] when the record cannot be decided again here."""
    try:
        return stages.describe_stages(replay.trace(event, config), d) if config else []
    except ReplayError:
        return []


@dataclass(frozen=True, slots=True)
class TrafficAround:
    """The app's traffic in the minutes around the decision."""

    chart: columns.Columns
    kept: int
    mark: float
    """Place of the decision, percent."""
    actions: tuple[int, ...]


def traffic_around(d: Decision) -> TrafficAround:
    """Count the app's decisions `SIDE_S` either side of this one, weighted by 1/probability."""
    at = d.at.timestamp()
    # Columns begin at multiples of their width, so that two pages of one minute agree.
    since = (at - SIDE_S) // BUCKET_S * BUCKET_S
    count = int(2 * SIDE_S / BUCKET_S)
    rows = lookup.within(lookup.beside(d).filter(app=d.app), since, since + count * BUCKET_S)
    cells = aggregate.cells(rows, since, BUCKET_S)
    chart = columns.columns(cells, since, BUCKET_S, count, floor=186, height=160)
    seen = sorted({c.action for c in cells})
    return TrafficAround(
        chart,
        sum(c.kept for c in cells),
        round(100 * (at - since) / (count * BUCKET_S), 2),
        tuple(seen),
    )


def standing_wait(d: Decision) -> str:
    """Return a sentence if a refusal repeats the wait that an earlier response told the app; empty
    if no stored response did.

    A client that comes back early is told the old deadline again, whatever refuses it now. Without
    this sentence, a wait of minutes would seem to come from a bucket that refills in seconds.
    """
    if d.retry_after < SHORT_WAIT_S or Stage(d.stage) == Stage.GUARD or d.observed:
        return ""
    at = d.at.timestamp()
    before = lookup.within(lookup.beside(d).filter(app=d.app), at - TOLD_WITHIN_S, at)
    told = before.filter(id__lt=d.id, retry_after__gt=d.retry_after, observed=False).order_by("-id")
    ends = at + d.retry_after
    if not any(
        abs(earlier.timestamp() + wait - ends) <= SAME_END_S
        for earlier, wait in told.values_list("at", "retry_after")[:EARLIER_TOLD]
    ):
        return ""
    # rounded up, as every wait is
    until = utc(math.ceil(ends))
    return f"An earlier response told it to wait until {until:%H:%M:%S} UTC, and that stands."


def kept_because(d: Decision) -> str:
    """Say in a clause why this decision is in the sample."""
    p = d.inclusion_probability
    # "an admit" is the only word of the five that begins with a vowel
    kind = f"{'an' if d.action == Action.ADMIT else 'a'} {Action(d.action).word}"
    # Refusals of enterprise have a sampling rate of their own.
    if d.tier == Tier.ENTERPRISE and d.action != Action.ADMIT:
        kind = "a refusal of enterprise"
    return f"{kind}, always kept" if p >= 1 else f"{kind}, kept {one_in(p)}"


@dataclass(frozen=True, slots=True)
class Bar:
    """A row of the waterfall with its place, percent of the scale of risk."""

    row: waterfall.WaterfallRow
    from_x: float
    to_x: float
    crosses: bool
    """Whether the running risk goes over the drawn threshold here."""


@dataclass(frozen=True, slots=True)
class DecisionPage:
    """Everything on a decision page."""

    d: Decision
    name: str
    known: KnownApp | None
    story: verdict.DecisionStory
    explained: Explained
    cut: Cut | None
    bands: tuple[Band, ...]
    steps: list[TraceStep]
    around: TrafficAround
    newer: Decision | None
    older: Decision | None
    replay: scenarios.Replay
    model_name: str
    check: ModelCheck | None
    kept_because: str
    record: str
    standing: str
    """Sentence that the wait of an earlier response still stands; empty when it does not."""
    code: str
    clause: str
    risk_mattered: bool
    """As `verdict.risk_mattered` says."""

    @property
    def tenant(self) -> str:
        """Name of the tenant, or its id when nobody registered the app."""
        return self.known.tenant_name if self.known else self.d.tenant or "no tenant"

    @property
    def cut_text(self) -> str:
        """The drawn threshold in figures; empty where none is drawn."""
        at = self.cut.at if self.cut else None
        return next((band.start_text for band in self.bands if band.start == at), "")

    @property
    def risk_text(self) -> str:
        """The risk in figures, told apart from each threshold."""
        return scale_figures(self.d.risk, [band.start for band in self.bands])[0]

    @property
    def worth(self) -> float | None:
        """What the request was worth, in ordinary requests; None when no model was asked."""
        return None if self.d.value is None else BASE_WORTH + self.d.value

    @property
    def risk_percent(self) -> float:
        return round((self.d.risk or 0.0) * 100, 2)

    @property
    def risk_anchor(self) -> str:
        return "start" if self.risk_percent < 12 else "end" if self.risk_percent > 88 else "middle"

    @property
    def latency_ms(self) -> float:
        return self.d.latency_us / 1000

    @property
    def cut_away(self) -> tuple[bool, bool]:
        """Whether the axis labels at 0.25 and at 0.50 are clear of the threshold's label."""
        if self.cut is None:
            return True, True
        # The label is about a third of the axis wide; a tenth more keeps the axis labels clear.
        at, width = self.cut.at, 0.34
        first = {"start": at, "end": at - width}.get(self.cut.anchor, at - width / 2)
        quarter, half = (
            first > place + 0.1 or first + width < place - 0.1 for place in (0.25, 0.5)
        )
        return quarter, half

    @property
    def fall_rows(self) -> list[Bar]:
        at = self.cut.at if self.cut else math.inf
        rows = self.explained.fall.rows if self.explained.fall else ()
        return [
            Bar(r, round(r.before * 100, 2), round(r.after * 100, 2), r.before < at <= r.after)
            for r in rows
        ]

    @property
    def fall_base(self) -> float:
        return round(self.explained.fall.base * 100, 2) if self.explained.fall else 0.0

    @property
    def rest_x(self) -> float:
        return round(self.explained.fall.rest_before * 100, 2) if self.explained.fall else 0.0

    @property
    def fall_score(self) -> float:
        return round(self.explained.fall.score * 100, 2) if self.explained.fall else 0.0

    @property
    def total_sign(self) -> str:
        return "−" if self.explained.fall and self.explained.fall.total < 0 else "+"

    @property
    def total_size(self) -> float:
        return abs(self.explained.fall.total) if self.explained.fall else 0.0

    @property
    def lead_reason(self) -> str:
        """The machine reason as a sentence; empty where the findings are the whole verdict."""
        if self.explained.reasons and self.code == Reason.RISK_HIGH.name:
            return ""
        return f"{self.clause[:1].upper()}{self.clause[1:]}."

    @property
    def listed_reasons(self) -> list[reason_codes.ReasonCode]:
        """The findings to list; those that hardly mattered only if nothing else tells why."""
        return [
            r for r in self.explained.reasons if r.effect >= LEAST_EFFECT or not self.lead_reason
        ]

    @property
    def usual_raises(self) -> list[tuple[str, float]]:
        """As in `Explained`."""
        return self.explained.usual_raises

    @property
    def no_score(self) -> str:
        """Why there was nothing to score, for decisions that no model was asked about."""
        return {
            Stage.GUARD: "Guard rules are never overruled by a model.",
            Stage.OVERRIDE: "An override in force says what happens, whatever a model would say.",
            Stage.TRIAGE: (
                "Triage admits what is within its plan and plainly harmless, and asks the model"
                " about the rest."
            ),
            Stage.FALLBACK: "The fallback limiter knows token buckets by tier, nothing else.",
        }.get(Stage(self.d.stage), "No model was asked.")

    @property
    def late(self) -> bool:
        """Whether nobody explains it unless it is opened: it was dropped, or an admit that is not
        among those explained beforehand.
        """
        return self.explained.state == "pending" and timezone.now() - self.d.stored_at > timedelta(
            seconds=backlog.KEEP_S
        )


def decision_page(d: Decision, *, with_token: bool) -> DecisionPage:
    """Read everything that the page of a stored decision shows.

    `with_token` includes the digest of the credential in the record.
    """
    event, config = d.event(), documents.config(d.config_version)
    known = directory.app(d.app)
    name = known.name if known else d.app
    found, marks = explained(d), thresholds(event, config)
    newer, older = lookup.neighbours(d)
    cut, standing = cut_of(d, marks), standing_wait(d)
    return DecisionPage(
        d=d,
        name=name,
        known=known,
        story=verdict.write_story(
            d, name, marks, list(found.reasons), found.usual_raises, stands=bool(standing)
        ),
        explained=found,
        cut=cut,
        bands=bands(marks, d.risk, cut.at if cut else None),
        steps=steps(d, event, config),
        around=traffic_around(d),
        newer=newer,
        older=older,
        replay=scenarios.replay_record(d, event, config),
        model_name=_model_name(d.model),
        check=ModelCheck.objects.filter(model=d.model).first() if d.model else None,
        kept_because=kept_because(d),
        record=record_json.record_text(d, found.explanation, with_token=with_token),
        standing=standing,
        code=reason_text.find_telling_reason(d.action, d.reason).name,
        clause=reason_text.clause(d),
        risk_mattered=verdict.risk_mattered(d, marks),
    )


def _model_name(digest: str) -> str:
    """Return the name of a model; empty when its file is not here."""
    try:
        return model_files.load_artifact(digest).name if digest else ""
    except ArtifactError:
        return ""
