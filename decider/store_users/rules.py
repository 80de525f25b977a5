"""The rules of the store's users, as Valkey and Redis 7 take them in `ACL SETUSER` and in their
configuration (https://valkey.io/topics/acl/).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

from decider.store_users.roles import (
    CHANNELS,
    KEYS,
    NOT_THE_OPERATORS,
    Keys,
    Role,
    commands_of,
)

# Everything of an installation begins with this, so an operator's user ends here too.
OURS: Final = "sluice:*"


def user_of(role: Role, prefix: str = "sluice") -> str:
    """Return the name of a role's user. `prefix` keeps installations of one server apart."""
    return f"{prefix}-{role}"


def rules_of(role: Role, password: str) -> str:
    """Return a role's rules, from `reset` on: a user that was there before keeps nothing. They hold
    a digest of the password, which cannot be turned back.
    """
    digest = hashlib.sha256(password.encode()).hexdigest()
    commands = [f"+{name}" for name in commands_of(role)]
    if role is Role.OPERATOR:
        keys, channels = [f"~{OURS}"], [f"&{OURS}"]
        commands += [f"-{name}" for name in NOT_THE_OPERATORS.split()]
    else:
        keys = [pattern for kind in KEYS if (pattern := _pattern(role, kind))]
        channels = [f"&{name}" for name, users in CHANNELS if role in users]
    return " ".join(["reset", "on", f"#{digest}", *keys, *channels, *commands])


def _pattern(role: Role, kind: Keys) -> str:
    """Return what a role may do with a kind of key as a pattern of the server, "" for nothing."""
    may = "R" * (role in kind.reads) + "W" * (role in kind.writes)
    return f"%{may}~{kind.pattern}" if may else ""


def tables() -> str:
    """Return what each role may do as two tables for people (Markdown), which docs/valkey.md shows:
    by key, and by role.
    """
    lines = ["| key or channel | read by | written by |", "| --- | --- | --- |"]
    lines += [f"| `{k.pattern}` | {_list(k.reads)} | {_list(k.writes)} |" for k in KEYS]
    for name, users in CHANNELS:
        publish = {role for role in users if "publish" in commands_of(role)}
        listen = {role for role in users if "subscribe" in commands_of(role)}
        lines.append(f"| `{name}` (channel) | {_list(listen)} | {_list(publish)} |")
    lines += ["", "| role | commands |", "| --- | --- |"]
    lines += [f"| {role} | {' '.join(commands_of(role))} |" for role in Role]
    lines[-1] = f"{lines[-1][:-2]}, without {NOT_THE_OPERATORS} |"
    return "\n".join(lines)


def _list(roles: Iterable[Role]) -> str:
    return ", ".join(role for role in Role if role in roles) or "–"
