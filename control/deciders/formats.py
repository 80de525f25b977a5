"""A check, before a config document is made, that the running deciders can read it."""

from __future__ import annotations

from control.deciders import acks
from control.errors import Refused, StoreUnavailable
from decider.contracts.config import Config, needed_format


def check_readable(old: Config, new: Config, now: float) -> None:
    """Raise Refused, with the field and the deciders, when `new` uses a field that `old` does not
    and that a decider alive at `now` (unix seconds) cannot read.

    Only what the change adds is checked. A decider that cannot read `old` stays behind in any case,
    and a kill switch must still reach the others.
    """
    form, field = needed_format(new)
    if form <= needed_format(old)[0]:
        return
    try:
        beats = acks.heartbeats(now)
    except StoreUnavailable as error:
        raise Refused(
            f"`{field}` needs deciders that read config format {form}, and Valkey cannot say which"
            f" ones run: {error}"
        ) from error
    behind = sorted(
        (status.node, status.config_format)
        for _, status in beats.values()
        if status is not None and status.config_format < form
    )
    if behind:
        nodes = ", ".join(f"{node} (reads up to format {reads})" for node, reads in behind)
        raise Refused(
            f"Not every decider can read this change: `{field}` needs config format {form}. Upgrade"
            f" these first: {nodes}."
        )
