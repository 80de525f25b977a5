from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from django.db import connection

from control.audit import chain
from control.audit.actors import SYSTEM
from control.config import changes
from control.models import AuditEntry, ConfigVersion
from tests.control.conftest import DELE


@pytest.mark.django_db(transaction=True)
def test_changes_at_once_get_distinct_rising_versions_and_none_is_lost(published) -> None:
    changes.first(by=SYSTEM, reason="A new installation")

    def raise_capacity(k: int) -> int:
        try:
            return changes.make_version(
                by=DELE,
                reason=f"Try {k}",
                action="config.test",
                subject="nodes",
                summary=f"try {k}",
                edit=lambda config: msgspec.structs.replace(config, nodes=config.nodes + 1),
            ).version
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        versions = list(pool.map(raise_capacity, range(24)))
    assert sorted(versions) == list(range(2, 26))
    assert (published().version, published().nodes) == (25, 8 + 24)
    assert AuditEntry.objects.count() == ConfigVersion.objects.count() == 25
    assert chain.verify().broken is None
