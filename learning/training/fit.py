"""Fits of the two models with LightGBM: which features they may learn from, how rows are weighed,
and the shift that makes the risk right for each tier.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import lightgbm
import numpy as np
import numpy.typing as npt

from decider.contracts import features
from decider.contracts.vocabulary import Tier
from learning.traffic.simulate import Traffic
from learning.training import metrics
from learning.training.leakage import check_label

# Minutes of simulation say nothing about a week, a day, a full ten minutes or an app's own past, so
# neither model may learn from these features. Unusual answers are left out too: simulated sites
# answer more alike than real ones, whose visitors were refused because of it (docs/adr, record 31).
UNTAUGHT = (
    "hour_of_week",
    "quota_used",
    "quota_pace",
    "rate_600s",
    "pace_over_own_hours",
    "pace_over_own_days",
    "unusual_answer_share_600s",
    "unusual_answers_600s",
)
# The state of a service is not evidence against an app. The risk model does not see it; the policy
# does.
NOT_OF_THE_APP = (
    "service_utilisation",
    "service_latency_ratio",
    "service_error_share",
    "feedback_age",
)
# The decider's own refusals are not evidence either: a model that took them for a sign of abuse
# would keep refusing an app that it once refused by mistake.
OWN_DOING = ("refused_share_60s", "refused_60s")
# Trees of the two models and leaves of each tree. Chosen: the scorer's benchmark measures 200 x 31,
# and value is a simpler function than risk.
RISK_ROUNDS, VALUE_ROUNDS, LEAVES = 200, 80, 31
# Share of those trees that the first stage's model gets. It only has to refuse roughly the requests
# that the final model will refuse.
FIRST_SHARE = 0.4
# Largest weight of one app in a fit, in requests, however many its rows stand for: a few loud apps
# must not be the whole data set.
MOST_OF_APP = 200
# Trees that shift the risk by tier, the learning rate of each, and the fewest rows of a leaf.
# Chosen: twelve steps of 0.3 come within 2% of the best shift, and fewer than 100 rows do not
# justify one.
TIER_ROUNDS, TIER_STEP, TIER_ROWS = 12, 0.3, 100


def balance_apps(traffic: Traffic) -> metrics.Floats:
    """Return the weight of each row in a fit, float64 (n,): the requests it stands for, scaled down
    so that no app weighs more than MOST_OF_APP in all.
    """
    _, app = np.unique(traffic.app, return_inverse=True)
    total = np.bincount(app, traffic.weight)
    weight: metrics.Floats = traffic.weight * np.minimum(1.0, MOST_OF_APP / total)[app]
    return weight


def fit_risk(
    traffic: Traffic, rows: npt.NDArray[np.bool_], seed: int, share: float = 1.0
) -> lightgbm.Booster:
    """Return the risk model, trained on `rows` (bool mask): binary, raw score in log-odds.

    `share` is the share of the usual number of trees. Raises TrainingError when the label has one
    class only, or when one column alone decides it.
    """
    x, y = traffic.features[rows], traffic.abusive[rows]
    check_label({name: x[:, i] for name, i in features.INDEX.items()}, y)
    params = _params(seed, ignore=(*UNTAUGHT, *NOT_OF_THE_APP, *OWN_DOING)) | {
        "objective": "binary",
        "monotone_constraints": [feature.risk for feature in features.FEATURES],
    }
    data = _dataset(x, y.astype(np.float32), balance_apps(traffic)[rows])
    return lightgbm.train(params, data, num_boost_round=round(share * RISK_ROUNDS))


def fit_value(
    traffic: Traffic, rows: npt.NDArray[np.bool_], seed: int, share: float = 1.0
) -> lightgbm.Booster:
    """Return the value model, trained on `rows` (bool mask): cross-entropy on a worth of 0 to 1."""
    # Another seed than risk's: the two must not draw the same features and rows for their trees.
    params = _params(seed + 1, ignore=UNTAUGHT) | {"objective": "cross_entropy"}
    data = _dataset(traffic.features[rows], traffic.value[rows], balance_apps(traffic)[rows])
    return lightgbm.train(params, data, num_boost_round=round(share * VALUE_ROUNDS))


def fit_both(
    traffic: Traffic, rows: npt.NDArray[np.bool_], seed: int, share: float = 1.0
) -> tuple[lightgbm.Booster, lightgbm.Booster]:
    """Return the risk and the value model. Raises TrainingError as `fit_risk` does."""
    # One thread for each model: two threads within one model wait for each other.
    with ThreadPoolExecutor(2) as side_by_side:
        risk, value = (
            side_by_side.submit(fit, traffic, rows, seed, share) for fit in (fit_risk, fit_value)
        )
        return risk.result(), value.result()


def _params(seed: int, ignore: tuple[str, ...]) -> dict[str, object]:
    """Return LightGBM's parameters that both models share; they never split on `ignore`."""
    return {
        "num_leaves": LEAVES,
        "learning_rate": 0.07,
        # Chosen above the 100 rows that one app keeps of a run, so that a leaf rarely stands for a
        # few requests of a single app.
        "min_data_in_leaf": 150,
        # The next four are judgement: they smooth a model of traffic that is only simulated.
        "lambda_l2": 10.0,
        "feature_fraction": 0.7,
        "bagging_fraction": 0.7,
        "bagging_freq": 1,
        # Few bins: fewer thresholds make smaller tables for the scorer and faster training.
        "max_bin": 63,
        # A contribution of 0 keeps a column in the schema and out of every split.
        "feature_contri": [0.0 if name in ignore else 1.0 for name in features.NAMES],
        "seed": seed,
        # These three give the same model to the bit: sums depend on threads and on the layout.
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "verbosity": -1,
    }


def _dataset(
    x: npt.NDArray[np.float32], y: npt.NDArray[np.float32], weight: metrics.Floats
) -> lightgbm.Dataset:
    return lightgbm.Dataset(x, label=y, weight=weight, feature_name=list(features.NAMES))


def shift_tiers(
    risk: lightgbm.Booster, traffic: Traffic, rows: npt.NDArray[np.bool_], seed: int
) -> lightgbm.Booster:
    """Return the risk model with further trees, fitted on `rows`, that split on the tier alone.

    Web clients are all free and many of them attack, which makes risk too high for free apps with a
    profile and too low for paying ones. As trees, the shift is part of every score and explanation.
    """
    wanted = _params(seed, ignore=tuple(name for name in features.NAMES if name != "tier"))
    wanted |= {
        "objective": "binary",
        "num_leaves": len(Tier),
        "learning_rate": TIER_STEP,
        "min_data_in_leaf": TIER_ROWS,
        "lambda_l2": 1.0,
        # Sampling is off: every tree uses all rows and the only feature.
        "feature_fraction": 1.0,
        "bagging_fraction": 1.0,
    }
    label = traffic.abusive[rows].astype(np.float32)
    data = _dataset(traffic.features[rows], label, balance_apps(traffic)[rows])
    return lightgbm.train(wanted, data, num_boost_round=TIER_ROUNDS, init_model=risk)
