"""The tenants of the tracked apps: which row of fair shares each has, and what its id is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from decider import policy
from decider.contracts.store import Profile
from decider.engine.memory.app_state import State
from decider.engine.shared.state import FIRST_OWN_ROW, SHARED_ROWS, Region

# Rows of tenants. Further tenants share the row of their tier, so memory stays bounded. Chosen:
# more tenants than a platform of ten million apps has active in a region; 24 bytes each, once used.
MAX_TENANTS = 1 << 20


class Tenants:
    """The tenants of one engine. Rules go by the hash of a tenant's id, never by its row."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._names: dict[int, str] = {}

    def place(
        self, profile: Profile, region: Region, tiers: np.ndarray, weights: Mapping[str, float]
    ) -> int:
        """Give an app's tenant its row of fair shares and write its tier and weight there. Return
        the row's number, 0 without a tenant.

        `tiers`: as `policy.Rules.tiers`. `weights`: by tenant's id, only where one differs from its
        tier's.
        """
        if not profile.tenant:
            return 0
        row, weight = self._rows.get(profile.tenant), weights.get(profile.tenant, 1.0)
        if row is None:
            if len(self._rows) < MAX_TENANTS - FIRST_OWN_ROW:
                row = self._rows[profile.tenant] = FIRST_OWN_ROW + len(self._rows)
            else:
                row, weight = SHARED_ROWS + profile.tier, 1.0
        region.tier[row] = profile.tier
        region.weight[row] = tiers[profile.tier, policy.T_WEIGHT] * weight
        return row

    def name(self, hashes: Sequence[int], names: Sequence[str], state: State) -> None:
        """Remember the ids of tenants by their hashes. Once there are too many, the ids of tenants
        without a tracked app are forgotten.
        """
        self._names.update(zip(hashes, names, strict=True))
        if len(self._names) > 2 * max(MAX_TENANTS, len(state.key)):
            held = set(state.tenant_key.tolist())
            self._names = {key: name for key, name in self._names.items() if key in held}

    def name_of(self, hashed: int) -> str:
        """Return the id of a tenant by its hash, empty while it is not known."""
        return self._names.get(hashed, "")

    def __len__(self) -> int:
        """Return how many names are remembered."""
        return len(self._names)
