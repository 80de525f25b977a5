"""The README's claims about decisions: each measured figure beside its target, misses first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from learning.evaluation import arms
from learning.evaluation.figures import Interval
from learning.evaluation.real_logs import LogResult, shipped_plan
from learning.evaluation.tournament import Evaluation
from learning.traffic import referee

BEGIN, END = "<!-- written by make evaluate -->\n", "<!-- end -->\n"
SLUICE, FALLBACK, ORACLE = arms.SLUICE.name, arms.FALLBACK.name, arms.ORACLE.name
# Targets by world, as shares of abuse admitted and of honest first tries refused. Chosen: what the
# best of our prototypes reached in the same worlds.
ABUSE = {"usual": 0.25, "calm": 0.5, "key rotation": 0.4, "flat profiles": 0.32}
FALSE = {"usual": 0.006, "calm": 0.006, "key rotation": 0.008, "flat profiles": 0.008}
# Largest share of the abuse that may get through in addition when abusers claim to retry.
CLAIM_GAIN = 0.03
# Under all shifts: the least AUC of the risk, and the largest share of honest requests at or above
# the risk that catches 80% of the abuse.
SHIFTED_AUC, SHIFTED_FALSE = 0.95, 0.05
# How far the share of honest first tries refused may lie above the oracle's.
ABOVE_ORACLE = 0.05
# Most refusals in 10,000 honest first tries of enterprise apps.
ENTERPRISE = 1.0
# Targets for each real log under the shipped plan: the fewest attack requests refused, and the most
# other clients of which a request is refused.
ATTACKS = {"acunetix": 5_000, "netsparker": 6_500, "w3af": 3_400, "password attack": 440}
OTHERS_HIT = {"acunetix": 4, "netsparker": 4, "w3af": 4, "password attack": 8}


@dataclass(frozen=True, slots=True)
class Claim:
    """One row of the table: a measured figure, its target, and whether its mean meets it."""

    what: str
    measured: str
    target: str
    met: bool


def find_claims(found: Evaluation) -> list[Claim]:
    """Return all claims: first those that miss their target, then those that meet it."""
    claims = [*_worlds(found), *_shifts(found), *_overload(found), *_logs(found.logs)]
    return sorted(claims, key=lambda claim: claim.met)


def replace_claims(text: str, found: Evaluation) -> str:
    """Return `text` with a new table of claims between the marks BEGIN and END.

    Raises ValueError when a mark is missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(
            f"the table of claims needs both marks around it: {BEGIN.strip()} and {END.strip()}"
        )
    head = (("what", "measured", "target", "met"), ("---",) * 4)
    rows = [
        (c.what, c.measured, c.target, "yes" if c.met else "**no**") for c in find_claims(found)
    ]
    table = "".join(f"| {' | '.join(row)} |\n" for row in (*head, *rows))
    return before + begin + table + end + after


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}%"


def _worlds(found: Evaluation) -> Iterator[Claim]:
    for world in ABUSE:
        abuse = found.board.abuse_admitted(world, SLUICE).mean
        false = found.board.false_throttle(world, SLUICE).mean
        other = (
            found.board.abuse_admitted(world, FALLBACK).mean,
            found.board.false_throttle(world, FALLBACK).mean,
        )
        yield Claim(
            f"{world}: abuse admitted; honest first tries refused",
            f"{_percent(abuse)}; {_percent(false, 2)}"
            f" (fallback limiter {_percent(other[0])}; {_percent(other[1], 2)})",
            f"{_percent(ABUSE[world], 0)}; {_percent(FALSE[world])}",
            abuse <= ABUSE[world] and false <= FALSE[world],
        )
    claims = found.board.abuse_admitted("claims retry", SLUICE).mean
    usual = found.board.abuse_admitted("usual", SLUICE).mean
    yield Claim(
        "abuse admitted when abusers claim to retry, above the same world without the claim",
        f"{100 * (claims - usual):.1f} points",
        f"{100 * CLAIM_GAIN:.0f} points",
        abs(claims - usual) <= CLAIM_GAIN,
    )


def _shifts(found: Evaluation) -> Iterator[Claim]:
    auc: Interval = found.board.auc("all shifts")
    false = found.board.false_throttle_at_catch("all shifts").mean
    yield Claim(
        "all shifts: AUC; honest requests above the risk that catches 80% of the abuse",
        f"{auc.mean:.3f}; {_percent(false)}",
        f"{SHIFTED_AUC}; {_percent(SHIFTED_FALSE, 0)}",
        auc.mean >= SHIFTED_AUC and false <= SHIFTED_FALSE,
    )


def _overload(found: Evaluation) -> Iterator[Claim]:
    hard = [world.name for world in referee.WORLDS if world.overload]
    for world in hard:
        own = found.board.false_throttle(world, SLUICE).mean
        best = found.board.false_throttle(world, ORACLE).mean
        failed = found.board.failed(world, SLUICE).mean
        yield Claim(
            f"{world}: honest first tries refused, admitted and failed",
            f"{_percent(own)}, {_percent(failed)} (oracle {_percent(best)}, 0.0%)",
            f"refused {100 * ABOVE_ORACLE:.0f} points above the oracle",
            own <= best + ABOVE_ORACLE,
        )
    easy = [world.name for world in referee.WORLDS if not world.overload]
    for names, said in ((hard, "overload worlds"), (easy, "other worlds")):
        wrong = found.board.enterprise(names, SLUICE).mean
        yield Claim(
            f"{said}: enterprise first tries refused, of 10,000",
            f"{wrong:.1f}",
            f"{ENTERPRISE:g}",
            wrong <= ENTERPRISE,
        )


def _logs(results: list[LogResult]) -> Iterator[Claim]:
    plan = shipped_plan().name
    for name, wanted in ATTACKS.items():
        for r in results:
            if r.log.startswith(name) and r.plan == plan and r.model:
                yield Claim(
                    f"real log, {r.log}: attack requests refused; others hit",
                    f"{r.attacks_refused:,} of {r.attacks:,}; {r.others_hit} of {r.others}",
                    f"{wanted:,}; {OTHERS_HIT[name]}",
                    r.attacks_refused >= wanted and r.others_hit <= OTHERS_HIT[name],
                )
