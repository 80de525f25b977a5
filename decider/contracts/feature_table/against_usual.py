"""The features that compare an app with what is usual: at its endpoints, for its tier and tenant,
for itself, and for a day. They stand at the end of the table.
"""

from __future__ import annotations

from decider.contracts.feature import Feature
from decider.contracts.feature import make_feature as _f

FEATURES_AGAINST_USUAL: tuple[Feature, ...] = (
    _f(
        "unusual_answer_share_600s",
        "share",
        "Answers unlike the endpoint's usual ones, last 10 min",
        "UNUSUAL_ANSWERS_10M",
        "{value} of ten minutes' answers were unlike what these endpoints usually answer.",
        "Only {value} of ten minutes' answers were unlike what these endpoints usually answer.",
        "feedback",
        "ERRORS",
        risk=1,
    ),
    _f(
        "unusual_answers_600s",
        "count",
        "Answers unlike the endpoint's usual ones in 10 min",
        "UNUSUAL_ANSWER_COUNT_10M",
        "{value} answers in ten minutes were unlike what these endpoints usually answer.",
        "Only {value} answers in ten minutes were unlike what these endpoints usually answer.",
        "feedback",
        "ERRORS",
        risk=1,
    ),
    _f(
        "busiest_step_share_600s",
        "share",
        "Requests that repeat its most frequent steps, last 20 min",
        "BUSIEST_STEP_10M",
        "{value} of twenty minutes' requests repeated its most frequent steps from one endpoint"
        " to the next.",
        "Only {value} of twenty minutes' requests repeated its most frequent steps from one"
        " endpoint to the next.",
        "counters",
        "SPREAD",
    ),
    _f(
        "pace_over_tier",
        "ratio",
        "Pace over its tier's usual pace",
        "PACE_OF_TIER",
        "Over the last minute it sent {value} the average of its tier’s apps, quiet ones included.",
        "Over the last minute it sent only {value} the average of its tier’s apps, quiet ones"
        " included.",
        "counters",
        "PACE",
        default=1.0,
        owner_controls=True,
        risk=1,
    ),
    _f(
        "pace_over_tenant",
        "ratio",
        "Pace over its tenant's usual pace",
        "PACE_OF_TENANT",
        "Over the last minute it sent {value} as fast as apps of its tenant usually do.",
        "Over the last minute it sent only {value} as fast as apps of its tenant usually do.",
        "counters",
        "PACE",
        default=1.0,
        owner_controls=True,
        risk=1,
    ),
    _f(
        "pace_over_own_hours",
        "ratio",
        "Pace over its own of the last hours",
        "PACE_OF_OWN_HOURS",
        "Over the last minute it sent {value} as fast as it did over its last two hours of"
        " traffic.",
        "Over the last minute it sent only {value} as fast as it did over its last two hours"
        " of traffic.",
        "counters",
        "PACE",
        default=1.0,
        owner_controls=True,
        risk=1,
    ),
    _f(
        "pace_over_own_days",
        "ratio",
        "Pace over its own of the last days",
        "PACE_OF_OWN_DAYS",
        "Over the last minute it sent {value} as fast as it did over its last two days of traffic.",
        "Over the last minute it sent only {value} as fast as it did over its last two days"
        " of traffic.",
        "counters",
        "PACE",
        default=1.0,
        owner_controls=True,
        risk=1,
    ),
    _f(
        "quota_pace",
        "ratio",
        "Use of the daily quota over the day so far",
        "QUOTA_PACE",
        "It uses its daily quota {value} as fast as the day goes by.",
        "It uses its daily quota only {value} as fast as the day goes by.",
        "counters",
        "QUOTA",
    ),
)
