"""The report of an evaluation: a page for people and a JSON file with every count."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from decider.contracts.files import write_atomically
from learning.evaluation import arms, claims
from learning.evaluation.arms import EvaluationArm, Quotas
from learning.evaluation.figures import PER_ENTERPRISE, Interval, RareCount, Scoreboard
from learning.evaluation.match import MatchResult
from learning.evaluation.real_logs import LogResult
from learning.evaluation.tournament import Evaluation
from learning.traffic import referee

PAGE, COUNTS = "evaluation.md", "evaluation.json"
INTRODUCTION = """\
# Evaluation

`make evaluate` plays limiters in simulated worlds that training never sees. It writes this page,
and [{counts}]({counts}) with every count. The worlds are those of the referee, version {version}:
`learning/traffic/referee.py`. The table is frozen; a world that changes gets another name.

Each world has {apps:,} apps, {rate:.0f} first tries a second, {settle:.0f} s to settle and
{counted:.0f} s that count. Figures are means over {seeds} seeds with 95% intervals (Student's t).
The model is the one that ships (`learning/training/shipped.py`), trees {model}.
"""
DEFINITIONS = """\
- **Abuse admitted**: tries of abusers that were admitted, over those where nothing is refused.
- **False throttles**: the share of honest first tries that were refused.
- **Failed**: the share of honest first tries that were admitted and not served, as their service
  was overloaded.
- **AUC** and **false throttles at 80%** judge the model's risk where nothing is refused, each
  request counted once: the area under the ROC curve, and the share of honest requests at or above
  the risk that catches 80% of the abuse.
"""
ENTERPRISE_BOUND = """
Where no seed has any, a mean over seeds has no spread to make an interval of. So Sluice's are also
counted, all seeds together: honest first tries of enterprise apps, how many were refused, and the
most that the share of refused ones may be (one-sided upper 95% bound, Clopper and Pearson, 1934).
In the overload worlds they count whether or not what enterprise apps ask for fits.

"""
BY_REQUEST = """
The bound is by request, as if each were drawn by itself. They are not: an app's requests are alike,
and a seed's crowd is the same in most worlds. By app it would be wider.
"""
REAL_LOGS = """\
Each address is a client on the free plan; nobody signs in and nothing is known of anyone. The scans
run on the traffic of a shop, all logs shifted to end together. Of the site's log those attack who
post to `xmlrpc.php` at least ten times; the site's own calls to itself are on the allow list, as
its owner would have it. The logs are public but not part of this repository.

"""


def write(folder: Path, found: Evaluation) -> None:
    """Write the page and the counts into `folder`. If the README beside it has the marks, replace
    the table between them.
    """
    readme = folder.parent / "README.md"
    if readme.is_file() and claims.BEGIN in (text := readme.read_text()):
        write_atomically(readme, claims.replace_claims(text, found).encode())
    write_atomically(folder / PAGE, compose_page(found).encode())
    write_atomically(folder / COUNTS, encode_counts(found))


def compose_page(found: Evaluation) -> str:
    """Return the whole page as Markdown."""
    sections = [
        _introduction(found),
        "## Worlds\n\n" + _worlds(),
        "## Arms\n\n" + _arms(found.quotas),
        "## Figures\n\n" + DEFINITIONS,
        "### Abuse admitted, %\n\n" + _by_arm(found.board, found.board.abuse_admitted),
        "### False throttles, %\n\n" + _by_arm(found.board, found.board.false_throttle),
        "### Honest first tries under overload, %\n\n" + _overload(found.board),
        "### Enterprise false throttles per 10,000\n\n" + _enterprise(found.board),
        "### Ranking\n\n" + _ranking(found.board),
        "## Real logs\n\n" + _real_logs(found.logs),
    ]
    return "\n".join(sections)


@dataclass(frozen=True, slots=True)
class CountsFile:
    """The content of the JSON file."""

    referee: int
    model: str
    quotas: Quotas
    seeds: tuple[int, ...]
    logs: list[LogResult]
    matches: list[MatchResult]


def encode_counts(found: Evaluation) -> bytes:
    """Return all counts as JSON, one match a line."""
    head = CountsFile(referee.VERSION, found.model, found.quotas, found.seeds, found.logs, [])
    lines = b",\n".join(msgspec.json.encode(result) for result in found.board.results)
    return msgspec.json.encode(head).removesuffix(b"]}") + b"\n" + lines + b"\n]}\n"


def decode_counts(data: bytes) -> Evaluation:
    """Return the evaluation whose counts `encode_counts` wrote.

    Raises ValueError for counts of another version of the referee, and for any other JSON.
    """
    read = msgspec.json.decode(data, type=CountsFile)
    if read.referee != referee.VERSION:
        raise ValueError(
            f"the counts are of referee version {read.referee}, but this is version"
            f" {referee.VERSION}: run the evaluation again"
        )
    return Evaluation(read.model, read.quotas, read.seeds, Scoreboard(read.matches), read.logs)


def _introduction(found: Evaluation) -> str:
    return INTRODUCTION.format(
        counts=COUNTS,
        version=referee.VERSION,
        apps=referee.APPS,
        rate=referee.RATE,
        settle=referee.SETTLE_S,
        counted=referee.COUNTED_S,
        seeds=len(found.seeds),
        model=f"`{found.model}`",
    )


def _worlds() -> str:
    return table(("world", "what happens"), [(w.name, w.says) for w in referee.WORLDS])


def _arms(quotas: Quotas) -> str:
    shown: tuple[EvaluationArm, ...] = (
        arms.NOTHING,
        arms.static_quotas(quotas),
        arms.FALLBACK,
        arms.SLUICE,
        arms.ORACLE,
    )
    return table(("arm", "how it decides"), [(arm.name, arm.says) for arm in shown])


def _by_arm(board: Scoreboard, figure: Callable[[str, str], Interval]) -> str:
    """Return a table of the figure by world and arm, without the oracle, which has its own."""
    names = [name for name in board.arms(referee.USUAL.name) if name != arms.ORACLE.name]
    rows = [(w.name, *(percent(figure(w.name, a)) for a in names)) for w in referee.WORLDS]
    return table(("world", *names), rows)


def _overload(board: Scoreboard) -> str:
    rows = [
        (
            world.name,
            name,
            percent(board.false_throttle(world.name, name)),
            percent(board.failed(world.name, name)),
        )
        for world in referee.WORLDS
        if world.overload
        for name in board.arms(world.name)
    ]
    return table(("world", "arm", "refused", "failed"), rows)


def _enterprise(board: Scoreboard) -> str:
    hard = [w.name for w in referee.WORLDS if w.overload]
    easy = [w.name for w in referee.WORLDS if not w.overload]
    rows = [
        (name, plain(board.enterprise(hard, name), 1), plain(board.enterprise(easy, name), 1))
        for name in board.arms(referee.USUAL.name)
    ]
    means = table(("arm", "overload worlds", "other worlds"), rows)
    counted = [
        (said, *_bounded(board.enterprise_refused(worlds, arms.SLUICE.name)))
        for said, worlds in (("overload", hard), ("other", easy), ("all", [*hard, *easy]))
    ]
    head = ("worlds", "honest first tries", "refused", "at most, per 10,000")
    return means + ENTERPRISE_BOUND + table(head, counted) + BY_REQUEST


def _bounded(count: RareCount) -> tuple[str, str, str]:
    """Return as text: the tries, the number found, and its bound per PER_ENTERPRISE."""
    bound = "–" if math.isnan(count.upper) else f"{PER_ENTERPRISE * count.upper:.2f}"
    return f"{count.tries:,}", f"{count.found:,}", bound


def _ranking(board: Scoreboard) -> str:
    rows = [
        (w.name, plain(board.auc(w.name), 3), percent(board.false_throttle_at_catch(w.name)))
        for w in referee.WORLDS
    ]
    return table(("world", "AUC", "false throttles at 80%, %"), rows)


def _real_logs(results: Sequence[LogResult]) -> str:
    if not results:
        return "No real logs were there when this page was written.\n"
    rows = [
        (
            r.log,
            r.plan,
            "bucket and model" if r.model else "bucket alone",
            f"{r.attacks_refused:,} of {r.attacks:,}",
            f"{r.others_hit:,} of {r.others:,}",
            f"{r.others_refused:,}",
            f"{r.crawlers_refused:,} of {r.crawlers:,}",
        )
        for r in results
    ]
    head = ("log", "plan", "arm", "attack requests refused", "other clients hit")
    return REAL_LOGS + table((*head, "their requests refused", "requests of named crawlers"), rows)


def percent(interval: Interval) -> str:
    """Return an interval of shares as text in percent: two decimals below 10%, one above."""
    scaled = Interval(100 * interval.mean, 100 * interval.half)
    return plain(scaled, 2 if scaled.mean < 10 else 1)


def plain(interval: Interval, digits: int) -> str:
    """Return a mean and its interval as text: "28.1 ± 3.2".

    With a single seed there is only the mean, and a dash where nothing was measured.
    """
    if math.isnan(interval.mean):
        return "–"
    if math.isnan(interval.half):
        return f"{interval.mean:.{digits}f}"
    return f"{interval.mean:.{digits}f} ± {interval.half:.{digits}f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
