"""Reads `sluice.yaml` into a declaration. What is wrong is told with line, column and what would be
right.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema
import msgspec

from control.declared import yaml_text
from control.declared.form import Declaration
from control.declared.schema import schema
from control.declared.yaml_text import DeclarationError, Fault, Path, Text
from decider.contracts.normalise.addresses import AddressError, listed

# What a JSON Schema type is called in a sentence, with an example.
_TYPES = {
    "string": "a text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "object": "a mapping (key: value)",
    "array": "a list, such as [a, b]",
    "null": "nothing",
}


def read(text: str) -> Declaration:
    """Return the declaration in a file's text. Raise DeclarationError with all faults."""
    found = yaml_text.read(text)
    if not isinstance(found.value, dict):
        says = "this holds no mapping: begin with `sluice: 1`, then name services"
        raise DeclarationError([Fault(1, 1, says)])
    if faults := list(_faults(found)):
        raise DeclarationError(faults)
    try:
        declared = msgspec.convert(found.value, Declaration)
    except msgspec.ValidationError as error:
        raise DeclarationError([Fault(1, 1, str(error))]) from error
    if faults := [Fault(*found.place(path), says) for path, says in _unclear(declared)]:
        raise DeclarationError(faults)
    return declared


@cache
def _validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema())


def _faults(found: Text) -> Iterator[Fault]:
    for error in _validator().iter_errors(found.value):
        path: Path = tuple(error.absolute_path)
        for inner, says in _sentences(error, path):
            of_key = len(inner) > len(path)
            yield Fault(*(found.key_place(inner) if of_key else found.place(inner)), says)


def _sentences(error: jsonschema.ValidationError, path: Path) -> Iterator[tuple[Path, str]]:
    """Yield the place and the sentence of each fault in an error of the schema."""
    value, rule, wanted = error.instance, error.validator, error.validator_value
    if rule == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        for key in value:
            if key not in known:
                yield (*path, key), _unknown(key, known)
    elif rule == "propertyNames" or "propertyNames" in error.absolute_schema_path:
        yield (*path, value if isinstance(value, str) else ""), _of_key(error)
    elif rule == "required":
        missing = [key for key in wanted if key not in value]
        # each missing key is an error of its own, which names it
        key = next((key for key in missing if repr(key) in error.message), missing[0])
        yield path, f"`{key}` is missing here: {_described(error.schema, key)}"
    else:
        yield path, _of_value(rule, wanted, value, error.schema)


# What people look for in the file, and where it is.
_ELSEWHERE = {
    "switches": "a switch is engaged in the console and is never in the file",
    "overrides": "an override ends, so it is granted in the console and is never in the file",
    "model": "a model is staged in the console and is never in the file",
}


def _unknown(key: str, known: list[str]) -> str:
    if key in _ELSEWHERE:
        return f"`{key}` is not known here: {_ELSEWHERE[key]}"
    near = difflib.get_close_matches(key[:100], known, 1)
    right = f"write `{near[0]}`" if near else f"what may stand here: {', '.join(known)}"
    return f"`{_short(key)}` is not known here: {right}"


def _described(holder: dict[str, Any], key: str) -> str:
    told = holder.get("properties", {}).get(key, {}).get("description", "")
    return (told[:1].lower() + told[1:]).rstrip(".") if told else f"write `{key}: …`"


def _of_key(error: jsonschema.ValidationError) -> str:
    key = _short(str(error.instance))
    if error.validator == "enum":
        near = difflib.get_close_matches(str(error.instance)[:100], error.validator_value, 1)
        right = f"write {near[0]}" if near else f"write one of {', '.join(error.validator_value)}"
        return f"`{key}` is not known here: {right}"
    if error.validator == "pattern" and "A-Z" in error.validator_value:
        return f"`{key}` is no endpoint: write method and path, such as GET /v2/orders/{{id}}"
    return f"`{key}` is no name: write 1 to 128 visible ASCII characters without spaces"


def _of_value(rule: str, wanted: Any, value: Any, holder: dict[str, Any]) -> str:
    about = holder.get("description", "")
    note = f" ({about.rstrip('.')})" if about else ""
    shown = f"`{_short(_written(value))}`"
    match rule:
        case "type":
            kinds = [wanted] if isinstance(wanted, str) else wanted
            said = f"{shown} is not {' or '.join(_TYPES[kind] for kind in kinds)}"
            return f"{said}: write one{note}"
        case "enum":
            choices = [_written(choice) for choice in wanted]
            near = difflib.get_close_matches(_written(value)[:100], choices, 1)
            right = f"write {near[0]}" if near else f"write one of {', '.join(choices)}"
            return f"{shown} is not known here: {right}{note}"
        case "minimum" | "exclusiveMinimum" | "maximum" | "exclusiveMaximum":
            return f"{shown} is out of range: write {_range(holder)}{note}"
        case "minLength" | "maxLength":
            most = holder.get("maxLength")
            least = holder.get("minLength", 0)
            return f"{shown} has {len(value)} characters: write {least} to {most}{note}"
        case "maxItems":
            return f"this list has {len(value)} items: write at most {wanted}{note}"
        case "pattern":
            if wanted == "^/":
                return f"{shown} does not begin with a slash: write a path{note}"
            return f"{shown} has signs that may not stand here: write visible ASCII{note}"
    return f"{shown} cannot stand here{note}"


def _range(holder: dict[str, Any]) -> str:
    least, above = holder.get("minimum"), holder.get("exclusiveMinimum")
    most = holder.get("maximum")
    low = f"{yaml_text.number_text(least)}" if least is not None else ""
    low = f"more than {yaml_text.number_text(above)}" if above is not None else low
    high = f"{yaml_text.number_text(most)}" if most is not None else ""
    if above is not None and high:
        return f"{low}, and at most {high}"
    return f"{low} to {high}" if low and high else f"at least {low}" if low else f"at most {high}"


def _written(value: Any) -> str:
    return next(iter(yaml_text.write([value])), "- ")[2:] if value is not None else "null"


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:39]}…"


def _unclear(declared: Declaration) -> Iterator[tuple[Path, str]]:
    """Yield place and sentence of what types cannot say."""
    lists = declared.lists or None
    for verdict in ("allow", "block", "compliance"):
        for number, entry in enumerate(getattr(lists, verdict, [])):
            named = [k for k in entry.__struct_fields__ if getattr(entry, k)]
            if len(named) != 1:
                yield (
                    ("lists", verdict, number),
                    "an entry names one app, tenant or source: write `app: app_1`, say",
                )
            elif isinstance(entry.source, str) and (said := _source_fault(entry.source)):
                yield ("lists", verdict, number, "source"), said


def _source_fault(source: str) -> str:
    try:
        kept = listed(source)
    except AddressError as error:
        return f"`{_short(source)}` cannot be used: {error}"
    # otherwise the file would never say what is in force
    return "" if kept == source else f"`{_short(source)}` is kept as {kept}: write {kept}"
