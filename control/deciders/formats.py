"""A check, before a config document is made, that the running deciders can read it."""

from __future__ import annotations

from control.deciders import acks
from control.errors import Refused, StoreUnavailable
from control.told import Reader
from decider.contracts.config import Config, needed_format


def check_readable(old: Config, new: Config, now: float) -> None:
    """Raise Refused, with the field and the deciders, when `new` uses a field that `old` does not
    and that a decider alive at `now` (unix seconds) cannot read.

    Only what the change adds is checked. A decider that cannot read `old` stays behind in any case,
    and a kill switch must still reach the others. What a heartbeat without a seal says counts, too:
    an older decider sends it, and somebody who forged it could only have a change refused.
    """
    form, field = needed_format(new)
    if form <= needed_format(old)[0]:
        return
    try:
        reader = Reader()
        beats = acks.heartbeats(now, reader)
    except StoreUnavailable as error:
        raise Refused(
            f"`{field}` needs deciders that read config format {form}, and Valkey cannot say which"
            f" ones run: {error}"
        ) from error
    claims = {doubt.node: doubt.claim for doubt in reader.doubts}
    running = {name: status or claims.get(name) for name, (_, status) in beats.items()}
    behind = sorted(
        (name, status.config_format)
        for name, status in running.items()
        if status is not None and status.config_format < form
    )
    if behind:
        nodes = ", ".join(f"{node} (reads up to format {reads})" for node, reads in behind)
        raise Refused(
            f"Not every decider can read this change: `{field}` needs config format {form}. Upgrade"
            f" these first: {nodes}."
        )
