"""Reason codes: the strongest findings against a request, one for each cause, in the feature
registry's own words.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from decider.contracts.features import FEATURES, INDEX, Feature, format_value
from decider.refusal.causes import CAUSES
from decider.refusal.findings import MOST, Finding, code_of, findings, is_high, stands_out
from decider.whatif.moves import COUNTED
from explain.shap.waterfall import Waterfall

__all__ = ["MOST", "ReasonCode", "rank_reasons", "write_because", "write_clause"]


# Risk points from which on a difference shows with two digits.
_SEEN = 0.005


@dataclass(frozen=True, slots=True)
class ReasonCode:
    """One adverse cause, told by the feature that weighs most in it."""

    code: str
    text: str
    """Sentences for staff: the value, what is usual, and the same of each of `others`."""
    effect: float
    """Risk points of all features that it tells."""
    feature: Feature
    value: float
    typical: float | None
    """What was usual in training: the median over honest requests of its tier; None when the model
    card has none.
    """
    others: tuple[ReasonCode, ...] = ()
    """Further features of the same cause that weigh nearly as much, strongest first, each with the
    effect of its own. `text` tells them too.
    """

    less: float = 0.0
    """Risk points that other features of its cause took off: what it tells weighs so much more."""
    unexpected: bool = False
    """Whether it says what most people would take for a sign of honesty, such as a low pace."""
    first: str = ""
    """The first sentence of `text`, without its full stop."""

    @property
    def whole_text(self) -> str:
        """`text`, and what other features of its cause took off where that can be seen."""
        if self.less < _SEEN:
            return self.text
        return f"{self.text} Others of its kind took {self.less:.2f} off."

    @property
    def cause(self) -> str:
        """Plain-language name of the cause."""
        return CAUSES[self.feature.cause].label

    @property
    def shown_value(self) -> str:
        return format_value(self.feature, self.value)

    @property
    def shown_typical(self) -> str:
        return "not known" if self.typical is None else format_value(self.feature, self.typical)


def rank_reasons(fall: Waterfall) -> list[ReasonCode]:
    """Return the strongest adverse causes of a waterfall, at most MOST, largest effect first.

    A cause whose effect is too small to show is left out, unless that would leave nothing.
    """
    listed = findings(fall.contributions, fall.values, fall.typical)
    found = [_reason(finding, fall) for finding in listed]
    return [reason for reason in found if reason.effect > 0] or found[:1]


# Chosen: as many as an eye takes in beside the reasons.
_MOST_USUAL = 3


def list_usual(fall: Waterfall) -> list[tuple[str, float]]:
    """Return (label, risk points) of features that raised the risk at a usual value, which is no
    reason. The largest come first, at most three; effects that round to 0 are left out.
    """
    if fall.typical is None:
        return []
    raised = [
        (FEATURES[k].label, fall.effect(contribution))
        for k, contribution in enumerate(fall.contributions)
        if fall.effect(contribution) > 0
        # NaN is unknown, which is not the same as usual
        and fall.values[k] == fall.values[k]
        and not stands_out(k, fall.values[k], fall.typical[k])
    ]
    return sorted(raised, key=lambda one: -one[1])[:_MOST_USUAL]


# Sources of features that the app's own behaviour moves. Features of the cause STANDING tell who
# the app is, so they are not about behaviour, whatever their source.
_BEHAVIOUR = frozenset({"request", "counters", "feedback"})
# A finding about behaviour is added if it has at least this share of the strongest effect. Chosen:
# an owner can change behaviour, so it is named unless it hardly mattered.
_ENOUGH = 0.3
# A second reason with at least this share of the strongest effect is named too. Chosen: beside it,
# nobody would call the first one alone the cause.
_NEARLY = 0.9


def write_because(found: Sequence[ReasonCode], usual: Sequence[tuple[str, float]] = ()) -> str:
    """Return the strongest reason as a clause: "because ...".

    A second reason that weighs nearly as much follows. If the strongest is not about behaviour, the
    strongest reason that is follows, unless it hardly mattered. As it may be any further reason,
    the words only claim that it added to the risk. `usual`: from `list_usual`. Where the largest of
    these weighs as much as the strongest reason, the clause says so.
    """
    strongest, weightier = found[0], _write_weightier(found[0], usual)
    clause = f"because {write_clause(strongest)}"
    behaviour = None if _is_behaviour(strongest) else _find_behaviour(found)
    second = _write_second(found)
    if behaviour is not None and not (second and found[1] is behaviour):
        lead = f"{clause}{second}" if weightier or second else f"most of all {clause}"
        what = "the request itself" if behaviour.feature.source == "request" else "its behaviour"
        return f"{lead}; {what} added: {_write_alone(behaviour)}{weightier}"
    return f"{clause}{second}{weightier}"


def _write_second(found: Sequence[ReasonCode]) -> str:
    """Return the second reason as a clause where it weighs nearly as much as the first, else ""."""
    if len(found) < 2 or found[1].effect < _NEARLY * found[0].effect:
        return ""
    much = "as much" if found[1].effect == found[0].effect else "nearly as much"
    return f"; {much} because {write_clause(found[1])}"


def _find_behaviour(found: Sequence[ReasonCode]) -> ReasonCode | None:
    """Return the strongest further reason about behaviour; None where all hardly mattered. What
    nobody expects to count against an app, such as a low pace, is nothing to act on.
    """
    return next(
        (
            reason
            for reason in found[1:]
            if _is_behaviour(reason)
            and not reason.unexpected
            and reason.effect >= _ENOUGH * found[0].effect
        ),
        None,
    )


def _write_weightier(strongest: ReasonCode, usual: Sequence[tuple[str, float]]) -> str:
    """Return what to add where something usual raised the risk as much as the strongest reason."""
    # Where an app of a tier starts is the same for all its apps, and no reason.
    usual = [one for one in usual if one[0] != _TIER]
    if not usual or usual[0][1] < strongest.effect:
        return ""
    label, effect = usual[0]
    much = "as much as" if effect == strongest.effect else "more than"
    return f"; “{label}”, at a usual value, raised its risk {much} that"


_TIER = next(feature.label for feature in FEATURES if feature.name == "tier")


def _is_behaviour(reason: ReasonCode) -> bool:
    return reason.feature.source in _BEHAVIOUR and reason.feature.cause != "STANDING"


# Nouns that the registry writes in the plural, after the figure 1.
_ONE = re.compile(
    r"\b1 (?:different )?((?:confirmed abuse )?(?:answer|app|IP address|chargeback|credential"
    r"|endpoint|path|refusal|report|request|thing))(?:es|s)\b"
)
# Plural verbs and pronouns that follow such a noun, with their singular.
_OF_ONE = ((" they were ", " it was "), (" were ", " was "), (" do not ", " does not "))


def _write_one(sentence: str, *, counted: bool) -> str:
    """Return a sentence about the figure 1 in the singular. `counted`: the figure counts the
    subject, so its verb changes too.
    """
    sentence = _ONE.sub(r"1 \1", sentence)
    if not counted:
        return sentence
    for several, one in (*_OF_ONE, (" repeat one ", " repeats one ")):
        sentence = sentence.replace(several, one, 1)
    return sentence


# Reason codes that nobody expects to count against an app: it sent little or long ago, asks for
# little, has a good past, or its service is well.
_UNEXPECTED = frozenset(
    f"{FEATURES[INDEX[name]].code}_{side}"
    for side, names in (
        (
            "LOW",
            (
                *("rate_1s", "rate_10s", "rate_60s", "cost_rate_60s", "request_cost"),
                *(
                    "pace_over_tier",
                    "pace_over_tenant",
                    "pace_over_own_hours",
                    "pace_over_own_days",
                ),
                *("burst_ratio", "payload_mean_60s", "payload_now", "write_share_60s"),
                *("write_share_600s", "quota_used", "quota_pace", "tenant_share"),
                *("cohort_prior", "abuse_history", "chargeback_history"),
                *("service_utilisation", "service_latency_ratio", "service_error_share"),
            ),
        ),
        (
            "HIGH",
            ("seconds_since_last", "seconds_since_first", "app_age", "false_throttle_history"),
        ),
    )
    for name in names
)


def _reason(finding: Finding, fall: Waterfall) -> ReasonCode:
    """Return a finding in words."""
    lead, *others = (_tell(k, fall) for k in finding.members)
    less = fall.effect(sum(fall.contributions[k] for k in finding.members)) - fall.effect(
        finding.weight
    )
    lead = replace(lead, effect=fall.effect(finding.weight), less=max(0.0, less))
    if not others:
        return lead
    told = "" if _list_spans(lead.feature, others) else " ".join(one.text for one in others)
    return replace(lead, text=f"{lead.text} {told}".strip(), others=tuple(others))


def _tell(k: int, fall: Waterfall) -> ReasonCode:
    """Return one feature of a finding in words."""
    feature, value = FEATURES[k], fall.values[k]
    usual = None if fall.typical is None else fall.typical[k]
    high = is_high(k, value, fall.typical)
    shown = format_value(feature, value)
    told = f"{shown}{_write_few(feature, fall)}"
    sentence = (feature.high if high else feature.low).format(value=told)
    if shown == "1":
        sentence = _write_one(sentence, counted=feature.unit == "count")
    first = sentence.split(". ")[0].rstrip(".")
    if usual is not None and usual == usual:
        known = format_value(feature, usual)
        # "not verified, usual yes" reads as its opposite
        told_usual = {"yes": "verified", "no": "not verified"}.get(known, known)
        sentence += f" Usual in training: {told_usual}."
    code = code_of(feature, high=high)
    if unexpected := code in _UNEXPECTED:
        sentence += " The model counts that against it here."
    effect = fall.effect(fall.contributions[k])
    return ReasonCode(
        code, sentence, effect, feature, value, usual, unexpected=unexpected, first=first
    )


# Requests or answers below which a share is told in numbers as well. Chosen: one more or less then
# moves it by a tenth.
_FEW = 10.0


def _write_few(feature: Feature, fall: Waterfall) -> str:
    """Return " (of about 3)" for a share of few requests or answers; "" for any other feature."""
    count = _count_behind(feature.name, fall.values)
    return f" (of about {max(1, round(count))})" if 0.0 < count < _FEW else ""


# Shares of an app's requests, with the pace over the same span and the span's seconds.
_OF_REQUESTS = {
    "write_share_60s": ("rate_60s", 60.0),
    "write_share_600s": ("rate_600s", 600.0),
    "sign_in_share_600s": ("rate_600s", 600.0),
}
# Shares of an app's answers that have a count beside them, by span: any of them that is not zero
# tells how many answers there were.
_OF_ANSWERS = {
    "60s": tuple(
        (share, COUNTED[share])
        for share in (
            "client_error_share_60s",
            "auth_error_share_60s",
            "not_found_share_60s",
            "payment_error_share_60s",
        )
    ),
    "600s": (
        ("client_error_share_600s", "client_errors_600s"),
        ("unusual_answer_share_600s", "unusual_answers_600s"),
    ),
}
# Shares of an app's answers that are told so.
_SHARES_OF_ANSWERS = frozenset(
    {
        *("error_share_60s", "server_error_share_60s", "client_error_share_600s"),
        *("auth_error_share_600s", "not_found_share_600s", "unusual_answer_share_600s"),
    }
)


def _count_behind(name: str, values: Sequence[float]) -> float:
    """Return the requests or answers of which the feature `name` is a share; 0 where the record
    does not tell, and for any other feature. `values`: in registry order.
    """
    if name in _OF_REQUESTS:
        pace, span = _OF_REQUESTS[name]
        found = float(values[INDEX[pace]]) * span
        return found if found > 0.0 else 0.0
    pairs: Sequence[tuple[str, str]] = ()
    if name in COUNTED:
        pairs = ((name, COUNTED[name]),)
    elif name in _SHARES_OF_ANSWERS:
        pairs = _OF_ANSWERS[name.rpartition("_")[2]]
    for share, count in pairs:
        part, some = float(values[INDEX[share]]), float(values[INDEX[count]])
        # NaN is unknown, and fails this
        if part > 0.0 and some > 0.0:
            return some / part
    return 0.0


def write_clause(reason: ReasonCode) -> str:
    """Return a reason as it continues "because": each feature that it tells, with how many times
    the usual its value was, or what is usual.
    """
    alone = _write_alone(reason)
    if not reason.others:
        return alone
    if spans := _list_spans(reason.feature, reason.others):
        return f"{alone}; the same over {spans} adds to it"
    if (sign_ins := _find_sign_ins(reason)) is not None:
        return f"{_write_alone(sign_ins)}; these count as writes, too"
    return _enumerate([alone, *map(_write_alone, reason.others)])


# Shares of requests that sign in, which are writes, and of all writes.
_SIGN_INS, _WRITES = "sign_in_share_600s", frozenset({"write_share_60s", "write_share_600s"})


def _find_sign_ins(reason: ReasonCode) -> ReasonCode | None:
    """Return what a reason tells of sign-ins where it tells nothing else but writes of the same
    share: the same requests. None otherwise.
    """
    told = (reason, *reason.others)
    if len({one.shown_value for one in told}) > 1:
        return None
    names = {one.feature.name for one in told}
    if not names - {_SIGN_INS} or not names - {_SIGN_INS} <= _WRITES:
        return None
    return next((one for one in told if one.feature.name == _SIGN_INS), None)


def _enumerate(clauses: Sequence[str]) -> str:
    """Return "a, and b" or "a; b; and c"."""
    if len(clauses) == 2:
        return ", and ".join(clauses)
    return f"{'; '.join(clauses[:-1])}; and {clauses[-1]}"


# The spans of time that end the names of features.
_SPANS = {"1s": "one second", "10s": "ten seconds", "60s": "one minute", "600s": "ten minutes"}


def _list_spans(feature: Feature, others: Sequence[ReasonCode]) -> str:
    """Return the spans of a reason's other features, if all measure what its own feature measures
    over another span: "ten seconds and ten minutes". Return "" if any measures something else.
    """
    measure = feature.name.rpartition("_")[0]
    split = [one.feature.name.rpartition("_") for one in others]
    if any(found != measure or span not in _SPANS for found, _, span in split):
        return ""
    return " and ".join(_SPANS[span] for _, _, span in split)


def _write_alone(reason: ReasonCode) -> str:
    first = reason.first or reason.text.split(". ")[0].rstrip(".")
    odd = ", which the model counts against it here" if reason.unexpected else ""
    return f"{first[0].lower()}{first[1:]}{_compare(reason)}{odd}"


def _compare(reason: ReasonCode) -> str:
    """Return how a reason's value compares with what was usual; empty when that is unknown or the
    reason's sentence says enough.
    """
    if times := _times(reason):
        return f", {times} times what was usual in training"
    if reason.typical is None or reason.typical != reason.typical:
        return ""
    if reason.feature.unit in ("share", "count", "ratio", "per_s", "cost_per_s"):
        return f", usual in training {reason.shown_typical}"
    return ""


def _times(reason: ReasonCode) -> str:
    """Return how many times the usual a value is, from 1.5 on, as text; empty where that would
    mislead.
    """
    if (
        reason.feature.unit not in ("per_s", "cost_per_s", "count")
        or not reason.typical
        or reason.typical <= 0
    ):
        return ""
    # A reader who divides the two shown numbers must get this one, so counts are rounded as shown.
    value, typical = reason.value, reason.typical
    if reason.feature.unit == "count":
        value, typical = round(value), round(typical)
    times = value / typical if typical else 0.0
    # Below 1.5 "times" would sound like more than it is; from 10 on a decimal adds nothing.
    if times < 1.5:
        return ""
    return f"{math.floor(times + 0.5):,}" if times >= 10 else f"{times:.1f}".removesuffix(".0")
