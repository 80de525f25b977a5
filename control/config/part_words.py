"""Parts of a config document in words: what a change does, what was, and what becomes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from control.config.parts import ORDER, Difference, Value, canonical
from decider.contracts.vocabulary import Action

# The last moment that a calendar has, the end of the year 9999, in unix seconds.
LATEST = 253_402_300_799.0
# Names of switches, of fields and of sections where the document's own would not be understood.
_SWITCHES = {"all_ml": "All ML", "observe_only": "Observe only"}
_FIELDS = {
    "rate": "rate (requests a second)",
    "burst": "burst (requests)",
    "quota_per_day": "daily quota (requests)",
    "error_budget": "error budget (share of requests)",
    "error_budget_per_hour": "error budget (requests an hour)",
    "rank_from": "score from which the model is asked",
    "capacity": "capacity (cost units a second)",
    "latency_ms": "usual latency (ms)",
    "ml_time_limit_ms": "time limit of scoring (ms)",
    "budget_per_s": "kept decisions a second",
    "four_eyes": "four eyes",
    ORDER: "order",
}
_VERDICTS = {"allow": "allow", "block": "block", "compliance": "compliance"}


@dataclass(frozen=True)
class Said:
    """One part in words."""

    what: str
    """What it is: standard tier, burst (requests)."""
    was: str
    becomes: str


def said(found: Difference) -> Said:
    """Return a difference in words."""
    return Said(what(found.path), text(found.path, found.before), text(found.path, found.after))


def clause(found: Difference) -> str:
    """Return what a difference does, a clause: it clears the switch “All ML”."""
    name = what(found.path)
    if found.path[0] == "apps":
        return f"it imports {text(found.path, found.after)}"
    if found.path == ("installation",):
        words = said(found)
        return f"it changes {name} (was {words.was}; becomes {words.becomes})"
    if found.before is None:
        if found.path[0] == "switches":
            return f"it engages {name}"
        return f"it adds {name}: {text(found.path, found.after)}"
    if found.after is None:
        return f"it clears {name}" if found.path[0] == "switches" else f"it removes {name}"
    if found.path[0] == "switches" and len(found.path) > 1:
        ends = said(found)
        was, becomes = (end.removeprefix("engaged, ") for end in (ends.was, ends.becomes))
        return f"it moves the end of {name}, {was} before, {becomes} now"
    verb = "changes"
    if _is_number(found.before) and _is_number(found.after):
        verb = "raises" if found.after > found.before else "lowers"
    return f"it {verb} {name} from {said(found).was} to {said(found).becomes}"


def what(path: tuple[str, ...]) -> str:
    """Return the name of a part in words."""
    section, rest = path[0], path[1:]
    if section == "switches" and rest:
        return f"the switch “{_SWITCHES.get(rest[0], rest[0].replace('_', ' '))}”"
    if section == "tiers" and rest:
        return ", ".join([f"{rest[0]} tier", *map(_field, rest[1:])])
    if section == "services" and rest and rest[0] != ORDER:
        return ", ".join([f"service {rest[0]}", *map(_field, rest[1:])])
    if section == "overrides" and rest and rest[0] != ORDER:
        return f"override {rest[0]}"
    if section == "lists" and rest and rest[0] != ORDER:
        return f"{rest[0]} entry"
    if section == "tenants" and rest:
        return f"tenant {rest[0]}, weight"
    if section == "apps":
        return "import of apps"
    if section == "installation":
        return "gateways and retention"
    return ", ".join(map(_field, path))


def text(path: tuple[str, ...], value: Value) -> str:
    """Return a value of a part in words."""
    if value is None:
        return "clear" if path[0] == "switches" else "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if _is_number(value):
        return f"{value:,.6g}" if isinstance(value, float) and value < 1 else f"{value:,.10g}"
    if isinstance(value, list):
        return ", ".join(text(path, one) for one in value) or "none"
    if isinstance(value, dict):
        try:
            return _entry(path, value)
        except (KeyError, TypeError, ValueError, OverflowError):
            # whoever can write the table can ask for anything; that costs its own words only
            return canonical(value)
    return str(value)


def _entry(path: tuple[str, ...], entry: dict[str, Value]) -> str:
    """Return a switch, a model, an override or a list entry in words."""
    if path[0] == "switches":
        return f"engaged, {_ends(entry)}"
    if path[0] == "model":
        return f"{entry['name']} v{entry['version']}"
    if path[0] == "overrides":
        does = (
            f"{Action(entry['action']).word} every request"
            if entry.get("action") is not None
            else f"{entry.get('multiplier', 1.0):g} times the plan"
        )
        return f"{does} of {entry['kind']} {entry['subject']}, {_ends(entry)}"
    if path[0] == "lists":
        return f"{_VERDICTS[entry['verdict']]} {entry['kind']} {entry['subject']}, {_ends(entry)}"
    if path[0] == "tenants":
        return f"{entry.get('weight', 1.0):g}"
    if path[0] == "apps":
        tenants = ", with the tenants that there are not" if entry["make_tenants"] else ""
        apps = "an app" if entry["apps"] == 1 else f"{entry['apps']:,} apps"
        return f"{apps} of the file {entry['file'][:12]}{tenants}"
    if path == ("installation",):
        days = entry["keep_days"]
        kept = f"for {days:,} days" if days else "as long as the settings say"
        named = ", ".join(f"{name} ({kind})" for name, kind in entry["gateways"].items())
        return f"gateways {named or 'none'}, decisions kept {kept}"
    return ", ".join(f"{_field(name)} {text(path, own)}" for name, own in entry.items())


def _ends(entry: dict[str, Value]) -> str:
    if (until := entry.get("until")) is None:
        return "until someone clears it"
    # later ones are faults of a change that is refused right after, which these words must survive
    if until > LATEST:
        return f"until {until:.0f} (unix seconds)"
    return f"until {datetime.fromtimestamp(until, UTC):%d %b %H:%M:%S} UTC"


def _field(name: str) -> str:
    return _FIELDS.get(name, name.replace("_", " "))


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
