"""Real logs in the evaluation: who attacks in them, and what a replay counts."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from learning.evaluation import real_logs
from learning.evaluation.real_logs import Plan
from learning.logs.access_log import pseudonym
from tests.learning.logs import REAL, combined

SCANNER, STRAY, VISITOR, CRAWLER = "192.0.2.1", "192.0.2.2", "198.51.100.1", "198.51.100.2"


def write(path: Path, lines: list[str]) -> None:
    path.write_bytes(gzip.compress("\n".join(lines).encode()))


def clients(*addresses: str) -> set[str]:
    return {pseudonym(real_logs.KEY, address) for address in addresses}


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A shop with a visitor and a crawler, and a scan of 300 requests in 30 s."""
    visits = [combined(second, VISITOR) for second in range(0, 60, 3)]
    crawls = [combined(second, CRAWLER, agent="Googlebot/2.1") for second in range(60)]
    write(tmp_path / real_logs.SHOP, visits + crawls)
    scan = [combined(30 + k // 10, SCANNER, f"GET /a{k} HTTP/1.1", 404) for k in range(300)]
    write(tmp_path / real_logs.SCANNERS["w3af"], [*scan, combined(59, STRAY)])
    return tmp_path


def test_a_scan_on_the_shop_is_counted_apart_from_its_visitors(shop: Path) -> None:
    (recording,) = real_logs.recordings(shop)
    assert recording.attackers == clients(SCANNER)
    assert recording.crawlers == clients(CRAWLER)
    found = real_logs.play(recording, Plan.per_minute(60), None)
    # a burst of 60, and one a second of the 29 that follow the first
    assert found.attacks == 300
    assert 300 - 60 - 31 <= found.attacks_refused <= 300 - 60 - 28
    assert (found.others, found.others_hit, found.others_refused) == (3, 0, 0)
    assert (found.crawlers, found.crawlers_refused) == (60, 0)

    found = real_logs.play(recording, Plan.per_minute(30), None)
    # 60 requests in 59 s against a burst of 30 and half a request a second
    assert (found.others_hit, found.others_refused) == (1, found.crawlers_refused)
    assert 0 < found.crawlers_refused <= 2


def test_who_posts_passwords_attacks_and_the_site_itself_does_not(tmp_path: Path) -> None:
    tries = [combined(k, SCANNER, "POST //xmlrpc.php HTTP/1.1") for k in range(40)]
    probes = [combined(k, STRAY, "POST /xmlrpc.php HTTP/1.1") for k in range(9)]
    itself = [
        combined(k, CRAWLER, "POST /wp-admin/admin-ajax.php HTTP/1.1", 401) for k in range(50)
    ]
    itself += [combined(k, CRAWLER, "POST /xmlrpc.php HTTP/1.1") for k in range(20)]
    write(tmp_path / real_logs.SITE, tries + probes + itself)
    (recording,) = real_logs.recordings(tmp_path)
    assert (recording.attackers, recording.allowed) == (clients(SCANNER), clients(CRAWLER))
    found = real_logs.play(recording, Plan("tight", 0.1, 5.0), None)
    assert (found.attacks, found.others_hit) == (40, 1)
    assert found.attacks_refused >= 40 - 5 - 4
    assert found.others_refused == 9 - 5, "the site itself is on the allow list"


def test_without_logs_there_is_nothing_to_replay(tmp_path: Path) -> None:
    assert real_logs.recordings(tmp_path) == []


def test_the_real_recordings_are_what_their_figures_are_told_of() -> None:
    found = {one.name: one for one in real_logs.recordings(REAL)}
    if len(found) < 4:
        pytest.skip("the folder with real data is not here (looked in ../shared/data)")
    attacks = {
        name: sum(one.requests[client] for client in one.attackers) for name, one in found.items()
    }
    assert attacks == {
        "acunetix on the shop": 6_538,
        "netsparker on the shop": 7_314,
        "w3af on the shop": 3_976,
        "password attack on a site": 1_469,
    }
