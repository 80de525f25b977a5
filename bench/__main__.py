"""`python -m bench [part]`: measures, prints one table, writes var/bench.json."""

from __future__ import annotations

import os
import sys
import time
from importlib import import_module

import msgspec

import installation
from bench import missing, peers
from decider import compiled_cache
from decider.store_users import own_user

# Modules with a `measure() -> list of rows`, in the order they run.
PARTS = (
    "model_scoring",
    "shap",
    "way_back",
    "engine_alone",
    "memory",
    "http_decision",
    "ingest",
    "kill_switch",
    "app_import",
    "busy_console",
    "lookup",
    "waiting_clients",
    "fleet",
    "late",
)
FIELDS = ("name", "figure", "unit", "peer", "peer_figure", "ratio", "target", "met", "conditions")
RESULT = installation.data_folder() / "bench.json"


def main(wanted: list[str]) -> int:
    """Run the wanted parts, all by default. Return 0 when all could be measured, 1 when one could
    not, and 2 for an unknown part.
    """
    # A measurement's Valkey is its own, and holds nothing that anybody else trusts. Set here: who
    # only imports a part keeps the environment as it is.
    os.environ.setdefault(own_user.ALLOW, "allow")
    if unknown := [part for part in wanted if part not in PARTS]:
        print(
            f"bench: no part is called {unknown[0]!r}; the parts are {', '.join(PARTS)}",
            file=sys.stderr,
        )
        return 2
    if (why := peers.install()) is not None:
        print(f"bench: {why}", file=sys.stderr)
        return 1
    compiled_cache.use_own_folder()
    rows, failed = [], 0
    for part in wanted or PARTS:
        started = time.monotonic()
        try:
            found = import_module(f"bench.{part}").measure()
        # A part that cannot run here must not cost the others.
        except (OSError, RuntimeError) as error:
            failed += 1
            said = [str(error), *getattr(error, "__notes__", ())]
            found = [missing(part, ". ".join(line.strip() for line in said))]
        print(f"bench: {part} took {time.monotonic() - started:.0f} s", file=sys.stderr)
        rows += [{"part": part, **{field: row[field] for field in FIELDS}} for row in found]
    print(table(rows))
    write(rows)
    return 1 if failed else 0


def write(rows: list[dict[str, object]]) -> None:
    """Store rows in var/bench.json in place of those of the same parts; other parts keep theirs."""
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    parts = {row["part"] for row in rows}
    kept = [row for row in _before() if part_of(row) not in parts]
    found = [{field: row[field] for field in FIELDS} for row in rows]
    RESULT.write_bytes(
        msgspec.json.format(msgspec.json.encode(sorted([*kept, *found], key=_place)), indent=1)
        + b"\n"
    )


def _before() -> list[dict[str, object]]:
    try:
        return msgspec.json.decode(RESULT.read_bytes(), type=list[dict[str, object]])
    except (OSError, msgspec.DecodeError):
        return []


def part_of(row: dict[str, object]) -> str:
    """Return the part that a row came from: rows are named "part: figure"."""
    return str(row["name"]).partition(":")[0].replace(" ", "_").partition(",")[0]


def _place(row: dict[str, object]) -> int:
    return PARTS.index(part_of(row)) if part_of(row) in PARTS else len(PARTS)


def table(rows: list[dict[str, object]]) -> str:
    """Return the rows as an aligned table; the conditions, which are long, follow below it."""
    head = ("what", "figure", "unit", "peer", "peer's", "ratio", "target", "met")
    cells = [[_text(row[field]) for field in FIELDS[:-1]] for row in rows]
    widths = [max(len(line[k]) for line in [head, *cells]) for k in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [head, *cells]
    ]
    return "\n".join(
        [
            *lines,
            "",
            "Conditions",
            *dict.fromkeys(f"- {row['name']}: {row['conditions']}" for row in rows),
        ]
    )


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:,}" if isinstance(value, int | float) else str(value)


if __name__ == "__main__":
    raise SystemExit(main([part for argument in sys.argv[1:] for part in argument.split(",")]))
