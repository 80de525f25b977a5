"""The table of features, in the order of every feature vector. Read it through `features`.

Texts speak about behaviour, not about the model. `{value}` and `{typical}` are filled with figures
formatted by the feature's `unit`; `typical` is the median of similar apps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Source = Literal["request", "counters", "feedback", "profile", "service", "clock"]
Unit = Literal[
    "per_s",
    "count",
    "ratio",
    "share",
    "cost_per_s",
    "seconds",
    "days",
    "bits",
    "kilobytes",
    "hour",
    "level",
    "flag",
    "cost",
]


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature: its name and words, where it comes from, and how old that may be."""

    name: str
    unit: Unit
    label: str
    """Plain-language name, sentence case."""
    code: str
    """Reason code stem; `_HIGH` or `_LOW` follows."""
    high: str
    """Sentence for staff when a high value is adverse."""
    low: str
    """Sentence for staff when a low value is adverse."""
    source: Source
    cause: str
    """Code of what it has in common with others (`refusal.causes.CAUSES`): findings of one cause
    are told once.
    """
    owner: str
    """Team that answers for it."""
    freshness_s: float
    """Oldest acceptable age of what it is computed from, seconds."""
    default: float
    """Value at a cold start."""
    owner_controls: bool = False
    """Whether the app's owner can change it (pace, errors, batching, waiting)."""
    dtype: str = "float32"


# Oldest acceptable age by source, seconds. Counters and the clock are read as of the request.
# Chosen for the others: outcomes and service figures come in batches, so a minute is usual; a
# profile changes rarely, so a day old one still holds.
_FRESHNESS_S: dict[Source, float] = {
    "request": 0.0,
    "counters": 1.0,
    "clock": 1.0,
    "feedback": 60.0,
    "service": 60.0,
    "profile": 86_400.0,
}
# Team by source; the others belong to "traffic".
_OWNERS: dict[Source, str] = {"profile": "accounts", "service": "sre"}


def _f(
    name: str,
    unit: Unit,
    label: str,
    code: str,
    high: str,
    low: str,
    source: Source,
    cause: str,
    *,
    default: float = 0.0,
    owner_controls: bool = False,
) -> Feature:
    """Return a feature whose owner and freshness follow from its source."""
    owner, freshness = _OWNERS.get(source, "traffic"), _FRESHNESS_S[source]
    words = (label, code, high, low)
    return Feature(
        name, unit, *words, source, cause, owner, freshness, default, owner_controls=owner_controls
    )


# Order is meaning: compiled code, models and stored vectors know a feature by its place. A feature
# that is added, moved or taken out changes the schema, and every model must be trained again.
FEATURES: tuple[Feature, ...] = (
    _f(
        "rate_1s",
        "per_s",
        "Requests a second, last 1 s",
        "PACE_1S",
        "It sent {value} requests in the last second. Similar apps send {typical}.",
        "It sent only {value} requests in the last second. Similar apps send {typical}.",
        "counters",
        "PACE",
        owner_controls=True,
    ),
    _f(
        "rate_10s",
        "per_s",
        "Requests a second, last 10 s",
        "PACE_10S",
        "It sent {value} requests a second over 10 s. Similar apps send {typical}.",
        "It sent only {value} requests a second over 10 s. Similar apps send {typical}.",
        "counters",
        "PACE",
        owner_controls=True,
    ),
    _f(
        "rate_60s",
        "per_s",
        "Requests a second, last minute",
        "PACE_60S",
        "It sent {value} requests a second over the last minute. Similar apps send {typical}.",
        "It sent only {value} requests a second over the last minute. Similar apps send {typical}.",
        "counters",
        "PACE",
        owner_controls=True,
    ),
    _f(
        "rate_600s",
        "per_s",
        "Requests a second, last 10 min",
        "PACE_10M",
        "It sent {value} requests a second over ten minutes. Similar apps send {typical}.",
        "It was quiet for ten minutes, {value} requests a second, and then began. Similar apps send"
        " {typical}.",
        "counters",
        "PACE",
        owner_controls=True,
    ),
    _f(
        "burst_ratio",
        "ratio",
        "Burst: 1 s pace over 60 s pace",
        "BURST",
        "Traffic came as a spike: {value} the pace of its own last minute. Similar apps {typical}.",
        "Traffic is unusually even: {value} the pace of its own last minute. Similar apps"
        " {typical}.",
        "counters",
        "PACE",
        default=1.0,
        owner_controls=True,
    ),
    _f(
        "gap_cv",
        "ratio",
        "Irregularity of the gaps between requests",
        "GAPS",
        "Its requests come in clumps: gaps vary by {value} their mean. Similar apps {typical}.",
        "Its requests come like clockwork: gaps vary by only {value} their mean. Similar apps"
        " {typical}.",
        "counters",
        "PACE",
        default=1.0,
        owner_controls=True,
    ),
    _f(
        "cost_rate_60s",
        "cost_per_s",
        "Cost units a second, last minute",
        "COST",
        "It asked for {value} cost units a second. Similar apps ask for {typical}.",
        "It asked for only {value} cost units a second. Similar apps ask for {typical}.",
        "counters",
        "PACE",
        owner_controls=True,
    ),
    _f(
        "request_cost",
        "cost",
        "Cost units of this request",
        "REQUEST_COST",
        "This endpoint is expensive: {value} cost units. Similar requests cost {typical}.",
        "This endpoint is cheap: {value} cost units. Similar requests cost {typical}.",
        "request",
        "SIZE",
        default=1.0,
        owner_controls=True,
    ),
    _f(
        "error_share_60s",
        "share",
        "Answers that were errors, last minute",
        "ERRORS",
        "{value} of the last minute's answers were errors. Similar apps see {typical}.",
        "Only {value} of the last minute's answers were errors. Similar apps see {typical}.",
        "feedback",
        "ERRORS",
        owner_controls=True,
    ),
    _f(
        "client_error_share_60s",
        "share",
        "4xx answers, last minute",
        "CLIENT_ERRORS",
        "{value} of the last minute's requests ended in a 4xx. Similar apps see {typical}.",
        "Only {value} of the last minute's requests ended in a 4xx. Similar apps see {typical}.",
        "feedback",
        "ERRORS",
        owner_controls=True,
    ),
    _f(
        "server_error_share_60s",
        "share",
        "5xx answers, last minute",
        "SERVER_ERRORS",
        "{value} of the last minute's requests ended in a 5xx. Similar apps see {typical}.",
        "Only {value} of the last minute's requests ended in a 5xx. Similar apps see {typical}.",
        "feedback",
        "SERVICE",
    ),
    _f(
        "auth_error_share_60s",
        "share",
        "401 and 403 answers, last minute",
        "AUTH_ERRORS",
        "{value} of its sign-ins or credentials were refused by the service. Similar apps see"
        " {typical}.",
        "Only {value} of its credentials were refused by the service. Similar apps see {typical}.",
        "feedback",
        "ERRORS",
        owner_controls=True,
    ),
    _f(
        "not_found_share_60s",
        "share",
        "404 answers, last minute",
        "NOT_FOUND",
        "{value} of its requests asked for things that do not exist. Similar apps {typical}.",
        "Only {value} of its requests asked for things that do not exist. Similar apps {typical}.",
        "feedback",
        "ERRORS",
        owner_controls=True,
    ),
    _f(
        "payment_error_share_60s",
        "share",
        "402 answers, last minute",
        "PAYMENT_ERRORS",
        "{value} of its payments were declined. Similar apps see {typical}.",
        "Only {value} of its payments were declined. Similar apps see {typical}.",
        "feedback",
        "ERRORS",
        owner_controls=True,
    ),
    _f(
        "refused_share_60s",
        "share",
        "Requests refused by Sluice, last minute",
        "REFUSED",
        "{value} of its requests were already being refused and it went on. Similar apps"
        " {typical}.",
        "Only {value} of its requests were being refused. Similar apps {typical}.",
        "counters",
        "RETRIES",
        owner_controls=True,
    ),
    _f(
        "retry_share_60s",
        "share",
        "Retries, last minute",
        "RETRIES",
        "{value} of its requests repeat one that had just failed or been refused. Similar apps"
        " {typical}.",
        "Only {value} of its requests were retries. Similar apps {typical}.",
        "counters",
        "RETRIES",
        owner_controls=True,
    ),
    _f(
        "early_retry_share_60s",
        "share",
        "Retries before Retry-After had passed, last minute",
        "EARLY_RETRIES",
        "{value} of its requests came back before the wait they were told. Similar apps {typical}.",
        "Only {value} of its requests came back too early. Similar apps {typical}.",
        "counters",
        "RETRIES",
        owner_controls=True,
    ),
    _f(
        "distinct_endpoints_60s",
        "count",
        "Different endpoints, last minute",
        "ENDPOINTS",
        "It called {value} different endpoints in a minute. Similar apps call {typical}.",
        "It called only {value} endpoints in a minute. Similar apps call {typical}.",
        "counters",
        "SPREAD",
        default=1.0,
        owner_controls=True,
    ),
    _f(
        "endpoint_entropy_60s",
        "bits",
        "Spread over endpoints, last minute",
        "SPREAD",
        "Its requests are spread widely over endpoints, {value}. Similar apps {typical}.",
        "Its requests all go to the same place, {value}. Similar apps {typical}.",
        "counters",
        "SPREAD",
        owner_controls=True,
    ),
    _f(
        "distinct_paths_60s",
        "count",
        "Different resources, last minute",
        "RESOURCES",
        "It asked for {value} different resources in a minute. Similar apps ask for {typical}.",
        "It asked for only {value} resources again and again. Similar apps ask for {typical}.",
        "counters",
        "SPREAD",
        default=1.0,
        owner_controls=True,
    ),
    _f(
        "distinct_tokens_60s",
        "count",
        "Different credentials, last minute",
        "TOKENS",
        "It used {value} different credentials in a minute. Similar apps use {typical}.",
        "It used only {value} credentials in a minute. Similar apps use {typical}.",
        "counters",
        "IDENTITY",
        default=1.0,
        owner_controls=True,
    ),
    _f(
        "distinct_sources_60s",
        "count",
        "Different addresses, last minute",
        "ADDRESSES",
        "It came from {value} different addresses in a minute. Similar apps from {typical}.",
        "It came from only {value} addresses in a minute. Similar apps from {typical}.",
        "counters",
        "IDENTITY",
        default=1.0,
    ),
    _f(
        "write_share_60s",
        "share",
        "Writes, last minute",
        "WRITES",
        "{value} of its requests were writes. Similar apps {typical}.",
        "Only {value} of its requests were writes. Similar apps {typical}.",
        "counters",
        "WRITES",
        owner_controls=True,
    ),
    _f(
        "payload_mean_60s",
        "kilobytes",
        "Mean request size, last minute",
        "PAYLOAD",
        "Its requests carry {value} each. Similar apps {typical}.",
        "Its requests carry only {value} each. Similar apps {typical}.",
        "counters",
        "SIZE",
        owner_controls=True,
    ),
    _f(
        "payload_now",
        "kilobytes",
        "Size of this request",
        "PAYLOAD_NOW",
        "This request carries {value}. Similar requests {typical}.",
        "This request carries only {value}. Similar requests {typical}.",
        "request",
        "SIZE",
        owner_controls=True,
    ),
    _f(
        "quota_used",
        "share",
        "Daily quota used",
        "QUOTA",
        "It has used {value} of its daily quota. Similar apps {typical}.",
        "It has used only {value} of its daily quota. Similar apps {typical}.",
        "counters",
        "QUOTA",
    ),
    _f(
        "seconds_since_last",
        "seconds",
        "Time since its last request",
        "PAUSE",
        "Its last request was {value} ago. Similar apps pause {typical}.",
        "Its last request was only {value} ago. Similar apps pause {typical}.",
        "counters",
        "PACE",
        # a day, the cap of `engine.features_of`: longer pauses tell nothing more
        default=86_400.0,
        owner_controls=True,
    ),
    _f(
        "seconds_since_first",
        "seconds",
        "Time since it was first seen here",
        "FIRST_SEEN",
        "It has been seen here for {value}. Similar apps {typical}.",
        "It was first seen here {value} ago. Similar apps {typical}.",
        "counters",
        "STANDING",
    ),
    _f(
        "hour_of_week",
        "hour",
        "Hour of the week",
        "HOUR",
        "It is {value} of the week, late for traffic like this. Similar apps call around"
        " {typical}.",
        "It is {value} of the week, early for traffic like this. Similar apps call around"
        " {typical}.",
        "clock",
        "CLOCK",
    ),
    _f(
        "tier",
        "level",
        "Tier",
        "TIER",
        "Apps on the {value} tier turn out abusive more often.",
        "Apps on the {value} tier turn out abusive more often.",
        "profile",
        "STANDING",
    ),
    _f(
        "app_age",
        "days",
        "Age of the app",
        "AGE",
        "The app is {value} old. Similar apps {typical}.",
        "The app is only {value} old. Similar apps {typical}.",
        "profile",
        "STANDING",
    ),
    _f(
        "verified",
        "flag",
        "Owner verified",
        "VERIFIED",
        "Its owner is verified, as are those of many apps that misbehave like this.",
        "Its owner is not verified.",
        "profile",
        "STANDING",
    ),
    _f(
        "cohort_prior",
        "share",
        "Abuse in its cohort",
        "COHORT",
        "{value} of the apps in its cohort turned out abusive. Overall {typical}.",
        "Only {value} of the apps in its cohort turned out abusive. Overall {typical}.",
        "profile",
        "STANDING",
        # as an unknown app's profile says (`store.Profile`)
        default=0.05,
    ),
    _f(
        "abuse_history",
        "count",
        "Confirmed abuse reports",
        "ABUSE_HISTORY",
        "Confirmed abuse reports against it: {value}. Similar apps {typical}.",
        "Confirmed abuse reports against it: {value}. Similar apps {typical}.",
        "profile",
        "HISTORY",
    ),
    _f(
        "chargeback_history",
        "count",
        "Chargebacks",
        "CHARGEBACKS",
        "Chargebacks against it: {value}. Similar apps {typical}.",
        "Chargebacks against it: {value}. Similar apps {typical}.",
        "profile",
        "HISTORY",
    ),
    _f(
        "false_throttle_history",
        "count",
        "Refusals found wrong",
        "WRONG_REFUSALS",
        "Refusals of it that were found wrong: {value}. Similar apps {typical}.",
        "Refusals of it that were found wrong: {value}. Similar apps {typical}.",
        "profile",
        "HISTORY",
    ),
    _f(
        "service_utilisation",
        "share",
        "Load on the service",
        "SERVICE_LOAD",
        "The service behind it was at {value} of its capacity. Usually {typical}.",
        "The service behind it was at only {value} of its capacity. Usually {typical}.",
        "service",
        "SERVICE",
    ),
    _f(
        "service_latency_ratio",
        "ratio",
        "Service latency over its usual",
        "SERVICE_LATENCY",
        "The service behind it was slow: {value} its usual time. Usually {typical}.",
        "The service behind it was fast: {value} its usual time. Usually {typical}.",
        "service",
        "SERVICE",
        default=1.0,
    ),
    _f(
        "service_error_share",
        "share",
        "Service errors",
        "SERVICE_ERRORS",
        "{value} of all answers of the service were errors. Usually {typical}.",
        "Only {value} of all answers of the service were errors. Usually {typical}.",
        "service",
        "SERVICE",
    ),
    _f(
        "tenant_share",
        "share",
        "Its tenant's share of the service",
        "TENANT_SHARE",
        "Its tenant used {value} of the service. Similar tenants {typical}.",
        "Its tenant used only {value} of the service. Similar tenants {typical}.",
        "service",
        "TENANT",
    ),
    _f(
        "feedback_age",
        "seconds",
        "Age of the newest outcome known for it",
        "FEEDBACK_AGE",
        "Nothing has come back about its requests for {value}. Similar apps {typical}.",
        "Outcomes of its requests are fresh, {value}. Similar apps {typical}.",
        "feedback",
        "FEEDBACK",
        # an hour, the cap of `engine.features_of`: nothing known is as good as too old
        default=3_600.0,
    ),
)
