"""The tenant of the demo that asks for six times its share, and the table of what came of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from console.management.noisy_tenant import Run
from learning.traffic import tokens
from learning.traffic.client import GatewayAnswer, GatewayClient, GatewayUnreachable
from learning.traffic.demos import noisy_tenant
from learning.traffic.demos.noisy_tenant import NOISY, TENANTS, Sender
from learning.traffic.tokens import Signer

APPS = {f"tenant-{k}": [f"app-{k}-{n}" for n in range(3 if k == 5 else 1)] for k in range(12)}


class Gateway:
    """Admits each app's first few requests, or answers nothing at all."""

    def __init__(self, admits: int | None) -> None:
        self.admits, self.asked = admits, Counter()

    async def send(self, request, query):
        if self.admits is None:
            raise GatewayUnreachable("nobody there")
        self.asked[request.app] += 1
        admitted = self.asked[request.app] <= self.admits
        return GatewayAnswer(200 if admitted else 429, 0.0, "dec_1")


def played(gateway: Gateway) -> tuple[Sender, list[Sender]]:
    noisy, quiet = noisy_tenant.senders(APPS, 8 * 100.0, "/v2/search")
    asyncio.run(noisy_tenant.play([noisy, *quiet], gateway, 0.3, lambda elapsed: None))
    return noisy, quiet


def test_one_tenant_asks_for_six_times_what_each_of_the_others_asks_for() -> None:
    noisy, quiet = noisy_tenant.senders(APPS, 800.0, "/v2/search")
    assert (noisy.tenant, noisy.pace) == ("tenant-5", NOISY * 100.0)
    assert [one.pace for one in quiet] == [100.0] * (TENANTS - 1)
    assert len({one.tenant for one in (noisy, *quiet)}) == TENANTS


def test_each_sends_at_its_pace_from_all_its_apps() -> None:
    gateway = Gateway(admits=1_000)
    noisy, quiet = played(gateway)
    assert noisy.admitted == noisy.decided == noisy.sent
    assert noisy.sent > 4 * max(one.sent for one in quiet)
    assert all(gateway.asked[app] > 0 for app in APPS["tenant-5"])


def test_its_clients_carry_tokens_that_name_their_apps(settings, tmp_path, monkeypatch) -> None:
    settings.SLUICE_KEYS = tmp_path
    heads: list[str] = []

    async def send(self, request, query):
        heads.append(self._encode(request, query).decode())
        return GatewayAnswer(200, 0.0, "dec_1")

    monkeypatch.setattr(GatewayClient, "send", send)
    noisy, quiet = noisy_tenant.senders(APPS, 8 * 20.0, "/v2/search")
    asyncio.run(Run(noisy, quiet, {}).play("http://127.0.0.1:1", 0.3, lambda text: None))
    signer = Signer(tmp_path / tokens.KEY_FILE)
    for app in APPS["tenant-5"]:
        assert any(f"Bearer {signer.token(app, f'tok_{app}')}\r\n" in head for head in heads)
    assert not [head for head in heads if "x-sluice-app" in head]


def test_what_was_refused_is_not_counted_as_admitted() -> None:
    noisy, quiet = played(Gateway(admits=2))
    assert noisy.admitted == 6
    assert all(one.admitted <= 2 < one.decided for one in quiet)


def test_a_gateway_that_is_away_is_said() -> None:
    with pytest.raises(noisy_tenant.GatewayError):
        played(Gateway(admits=None))


def test_too_few_tenants_are_said() -> None:
    with pytest.raises(ValueError, match="only 1 are fit"):
        noisy_tenant.senders({"t": ["a"]}, 100.0, "/")


def run(*readings: tuple[float, float, float]) -> Run:
    """A run in which all quiet tenants were read alike, and the noisy one as first told."""
    noisy, quiet = noisy_tenant.senders(APPS, 800.0, "/v2/search")
    made = Run(noisy, quiet, {})
    for one, figures in zip([noisy, *quiet], readings, strict=False):
        made.readings.by_tenant[one.tenant].append(figures)
    made.readings.short = made.readings.taken = 1
    return made


def test_the_table_compares_what_was_given_with_what_was_due() -> None:
    made = run((120.0, 20.0, 21.0), *[(20.0, 20.0, 19.0)] * 7)
    made.noisy.sent, made.noisy.decided, made.noisy.admitted = 640, 600, 100
    text = "\n".join(made.table())
    assert "tenant-5" in text
    assert "105%  100 of 600" in text
    assert "105% of its due; the quiet tenants 95% to 95% of theirs." in text
    assert "40 of 640 requests were not decided" in text
    assert "too busy" not in text


def test_with_too_many_undecided_the_table_proves_nothing_and_says_so() -> None:
    made = run((120.0, 20.0, 21.0), *[(20.0, 20.0, 19.0)] * 7)
    made.noisy.sent, made.noisy.decided = 640, 300
    assert "the machine is too busy" in made.table()[-1]


def test_a_table_of_too_little_says_so() -> None:
    assert "too few to judge" in run().table()[0]


@pytest.mark.django_db
def test_the_command_says_what_it_lacks(valkey) -> None:
    with pytest.raises(CommandError, match="no service search"):
        call_command("demo", "noisy-tenant", stdout=StringIO())
