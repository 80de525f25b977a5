"""After the database was restored from a backup: the config gets a version that every decider
follows.

A restored database gives out versions that were given out before. Deciders follow no version at or
below the one in force, so without this no change would reach them, a kill switch included.
"""

from __future__ import annotations

from control.audit.actors import Actor
from control.config import changes
from control.deciders import acks, publish
from control.errors import Refused
from control.models import ConfigVersion
from decider.contracts.config import EPOCH, version_text

# Highest version that is believed of a decider. Chosen: JSON readers count whole numbers up to 2^53
# exactly, and a heartbeat that claims more must not use the epochs up.
MOST_VERSION = (1 << 53) - EPOCH - 1


def newest_followed(now: float) -> int:
    """Return the newest version that a decider alive at `now` (unix seconds) follows or that the
    store holds, 0 for none. Raise StoreUnavailable.
    """
    held = publish.held()
    followed = [status.config_version for _, status in acks.heartbeats(now).values() if status]
    versions = [*followed, *([held[0].version] if held else [])]
    return max((version for version in versions if version <= MOST_VERSION), default=0)


def follow_database(*, by: Actor, reason: str, now: float) -> ConfigVersion | None:
    """Publish the newest config of the database under a version that every decider follows, in a
    new epoch. Return that version; None when no decider is ahead of the database. Raise Refused
    without a config or a reason, StoreUnavailable.
    """
    newest = changes.latest()
    if newest is None:
        raise Refused("There is no config version yet. `manage.py seed` makes the first one.")
    above = newest_followed(now)
    if above <= newest.version and not _refused(newest, now):
        return None
    return changes.make_version(
        by=by,
        reason=reason,
        action="config.restored",
        subject="config",
        summary=(
            f"published config {version_text(newest.version)} again, as the database was restored"
        ),
        edit=lambda ours: ours,
        # at least the database's own, where deciders have another document of that version
        above=max(above, newest.version + 1),
    )


def _refused(newest: ConfigVersion, now: float) -> bool:
    """Return whether a decider refused the newest version."""
    reached = acks.propagation(newest, now)
    return any(node.state is acks.NodeState.REFUSED for node in reached.nodes)
