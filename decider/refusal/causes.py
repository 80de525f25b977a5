"""The registry of causes. They group findings, and customers are told causes, never features.

One burst raises a dozen features. A reply that named each feature would name the same burst a dozen
times. So every feature belongs to one cause (`Feature.cause`), and its strongest feature stands for
the cause.

A customer's sentence speaks of what was sent and says what to do. A cause without a sentence is
never told: it concerns who the app is, its history, or signs of abuse. A reply that named those
would teach abusers what to avoid.
"""

from __future__ import annotations

from typing import NamedTuple

from decider.contracts.vocabulary import Reason


class Cause(NamedTuple):
    """One cause: its code, its name, and what customers are told of it."""

    code: str
    """Stable code, as customers get it."""
    label: str
    """Plain-language name, sentence case."""
    high: str = ""
    """Customer's sentence when high values were adverse; empty when it is not told."""
    low: str = ""
    """Customer's sentence when low values were adverse; empty when it is not told."""
    wait: str = ""
    """Sentence that is added where the response tells a wait; a block never tells one."""


# One sentence for both sides: a low value (a short gap, say) means a high pace as well.
_PACE = "The pace of the requests and the work they ask for stood out. Spread them over time."

CAUSES: dict[str, Cause] = {
    cause.code: cause
    for cause in (
        Cause("PACE", "Pace", _PACE, _PACE),
        Cause(
            "SIZE",
            "Size of requests",
            "The requests are large or expensive to serve. Ask for less in one request.",
        ),
        Cause(
            "ERRORS",
            "Errors",
            "Many of the requests ended in errors. Correct what they ask for before sending more.",
        ),
        Cause(
            "RETRIES",
            "Retries",
            "Many of the requests were retries.",
            wait="Wait as long as Retry-After says before trying again.",
        ),
        # No sentences for spread, writes and identity: their features are signs of abuse. Sign-ins
        # are writes, so that one reason tells both.
        Cause("SPREAD", "Spread of requests"),
        Cause("WRITES", "Writes and sign-ins"),
        Cause(
            "QUOTA",
            "Daily quota",
            "Much of the daily quota is used. It starts again at midnight UTC.",
        ),
        Cause(
            "LEASE",
            "Part of the daily quota",
            "The next part of the quota was not at hand.",
            wait="Wait as long as Retry-After says.",
        ),
        Cause(
            "SERVICE",
            "State of the service",
            "The service was busy or failing.",
            wait="Wait as long as Retry-After says.",
        ),
        Cause(
            "TENANT",
            "Its tenant's use",
            "The service was busy, and your organisation as a whole was over its share. Spread its"
            " use over time.",
        ),
        Cause("IDENTITY", "Credentials and IP addresses"),
        # None for these three either: the customer can change neither record nor clock.
        Cause("STANDING", "Who the app is"),
        Cause("HISTORY", "What became of it before"),
        Cause("CLOCK", "Time of the week"),
        # None here: it concerns what Sluice knows, not what the customer sent.
        Cause("FEEDBACK", "Age of what is known"),
        Cause(
            "VALUE",
            "What the request is worth",
            "The service was busy and served other requests first. Do what is not urgent at another"
            " hour.",
        ),
        Cause(
            "UNKNOWN_APP",
            "Unknown app",
            "The app id is not known here, and such requests share a small allowance.",
        ),
        # None for what people decided: a person tells it, in reply to the customer.
        Cause("LEGAL", "Compliance rule"),
        Cause("LISTED", "Block list"),
        Cause("HELD", "Operator override"),
    )
}

# Features that no customer is told of, whatever their cause: they are how abuse is noticed.
SIGNS_OF_ABUSE = frozenset(
    {
        "auth_error_share_60s",
        "not_found_share_60s",
        "payment_error_share_60s",
        "auth_errors_60s",
        "not_found_60s",
        "payment_errors_60s",
        "distinct_endpoints_60s",
        "endpoint_entropy_60s",
        "distinct_paths_60s",
        "distinct_tokens_60s",
        "distinct_sources_60s",
        "write_share_60s",
        "auth_error_share_600s",
        "not_found_share_600s",
        "write_share_600s",
        "sign_in_share_600s",
        "sign_ins_60s",
        "path_entropy_600s",
        "busiest_path_share_600s",
        "busiest_step_share_600s",
        "unusual_answer_share_600s",
        "unusual_answers_600s",
        "apps_of_source_600s",
        "new_apps_of_source_600s",
        "source_error_share_600s",
        "abuse_history",
        "chargeback_history",
    }
)

# Findings that a customer may be told, as feature and side: their own pace, errors, retries and
# sizes, and the service's load. They can act on these.
#
# The other side of most stays untold, because it would give detection away: even gaps, say, are how
# Sluice notices a script.
TELLING = frozenset(
    {
        *(
            "rate_1s:high",
            "rate_10s:high",
            "rate_60s:high",
            "rate_600s:high",
            "seconds_since_last:low",
        ),
        *("pace_over_tier:high", "pace_over_tenant:high"),
        *("pace_over_own_hours:high", "pace_over_own_days:high"),
        *("burst_ratio:high", "gap_cv:high", "cost_rate_60s:high"),
        *("request_cost:high", "payload_mean_60s:high", "payload_now:high"),
        *("error_share_60s:high", "client_error_share_60s:high", "client_errors_60s:high"),
        *("client_error_share_600s:high", "client_errors_600s:high"),
        *("refused_share_60s:high", "retry_share_60s:high", "early_retry_share_60s:high"),
        *("refused_60s:high", "retries_60s:high", "early_retries_60s:high"),
        *(
            "server_error_share_60s:high",
            "service_error_share:high",
            "service_latency_ratio:high",
            "service_utilisation:high",
        ),
        "tenant_share:high",
    }
)

# The cause that a machine reason names by itself. RISK_HIGH is missing because the model's findings
# name its cause; the other reasons missing here refuse nothing.
OF_REASON: dict[Reason, str] = {
    Reason.COMPLIANCE: "LEGAL",
    Reason.BLOCK_LISTED: "LISTED",
    Reason.QUOTA_EXHAUSTED: "QUOTA",
    Reason.LEASE_AWAITED: "LEASE",
    Reason.UNKNOWN_APP: "UNKNOWN_APP",
    Reason.OVERRIDE_REFUSE: "HELD",
    Reason.BURST_EXHAUSTED: "PACE",
    Reason.TOKENS_EMPTY: "PACE",
    Reason.VALUE_LOW: "VALUE",
    Reason.SERVICE_OVERLOADED: "SERVICE",
    Reason.TENANT_OVER_SHARE: "TENANT",
}
