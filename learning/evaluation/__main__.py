"""`python -m learning.evaluation`: trains the model that a new installation starts with, plays all
matches of the referee, replays real access logs, and writes the report and its counts.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tqdm import tqdm

from decider import compiled_cache

HERE = Path(__file__).parents[2]


def main() -> int:
    """Evaluate as asked on the command line. Return 0, or 1 when the model or a log
    cannot be read.
    """
    asked = _arguments()
    # Must come before the engine is imported: otherwise numba could load code that was compiled
    # from other sources.
    compiled_cache.use_own_folder()
    from learning.evaluation import report, tournament
    from learning.logs.access_log import LogError

    workers = tournament.usual_workers() if asked.workers is None else asked.workers
    try:
        with tqdm(unit=" matches", leave=False, disable=None) as bar:
            found = tournament.evaluate(
                asked.full, workers, asked.logs, lambda _: bar.update(), _say
            )
    except (OSError, LogError) as error:
        print(f"learning.evaluation: {error}", file=sys.stderr)
        return 1
    report.write(asked.out, found)
    print(report.compose_page(found))
    return 0


def _say(what: str) -> None:
    print(f"evaluation: {time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m learning.evaluation", description="Judge limiters in the referee's worlds."
    )
    parser.add_argument("--full", action="store_true", help="play all seeds, not half of them")
    parser.add_argument("--out", type=Path, default=HERE / "docs", help="folder of the report")
    parser.add_argument(
        "--logs",
        type=Path,
        default=HERE.parent / "shared" / "data",
        help="folder of the real access logs; missing logs are left out",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=None,
        help="number of processes that play; 0 plays in this process",
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
