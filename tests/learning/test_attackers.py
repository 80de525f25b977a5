"""The two attackers of the demo."""

from __future__ import annotations

import asyncio

import pytest
from django.core.management import CommandError, call_command

from learning.traffic import services
from learning.traffic.client import GatewayAnswer, GatewayUnreachable
from learning.traffic.demos import attackers
from learning.traffic.demos.attackers import ATTACKERS, PATIENCE, Attacker, Report, RotatingAttacker

REFUSED, SERVED = GatewayAnswer(429, 5.0, "dec_1"), GatewayAnswer(401, 0.0, "dec_2")


class Gateway:
    """Answers each request as told, or not at all."""

    def __init__(self, answer: GatewayAnswer | None) -> None:
        self.answer, self.asked = answer, []

    async def send(self, request, query):
        self.asked.append(request)
        if self.answer is None:
            raise GatewayUnreachable("nobody there")
        return self.answer


def played(attacker: Attacker, answer: GatewayAnswer | None, monkeypatch) -> tuple[Gateway, Report]:
    monkeypatch.setattr(attackers, "PACE", 2_000.0)
    gateway = Gateway(answer)
    asyncio.run(attackers.attack(attacker, gateway, 0.1, lambda report: None))
    return gateway, attacker.report


def test_stuffing_tries_a_new_credential_at_the_sign_in_each_time(monkeypatch) -> None:
    gateway, report = played(Attacker(1), SERVED, monkeypatch)
    assert len(gateway.asked) > 20
    assert {(q.method, q.path) for q in gateway.asked} == {("POST", "/v2/auth/token")}
    assert len({q.token for q in gateway.asked}) == len(gateway.asked)
    wrong = sum(q.token.startswith(services.EXPIRED_PREFIX) for q in gateway.asked)
    assert wrong > 0.8 * len(gateway.asked)
    assert len({q.app for q in gateway.asked}) == 1
    assert report.passed == report.sent == len(gateway.asked)


def test_rotation_takes_a_new_id_after_so_many_refusals_and_keeps_its_addresses(
    monkeypatch,
) -> None:
    gateway, report = played(RotatingAttacker(1), REFUSED, monkeypatch)
    ids = [q.app for q in gateway.asked]
    assert all(ids.count(one) == PATIENCE for one in report.apps[:-1] if one in ids)
    assert len(report.apps) > 3
    assert len({q.source for q in gateway.asked}) <= attackers.ADDRESSES
    assert report.passed == 0
    assert report.decision == "dec_1"
    assert f"{len(report.apps)} app ids" in report.describe()


def test_each_attacker_is_a_new_one() -> None:
    assert Attacker().report.apps != Attacker().report.apps


def test_a_gateway_that_is_away_is_said(monkeypatch) -> None:
    with pytest.raises(GatewayUnreachable):
        played(Attacker(1), None, monkeypatch)


@pytest.mark.parametrize("name", sorted(ATTACKERS))
def test_the_command_says_how_to_start_what_it_attacks(name: str, monkeypatch) -> None:
    monkeypatch.setattr(attackers, "PACE", 2_000.0)
    with pytest.raises(CommandError, match="make run"):
        call_command("demo", name, "--gateway", "http://127.0.0.1:9", "--seconds", "1")


def test_the_command_checks_how_long() -> None:
    with pytest.raises(CommandError, match="--seconds"):
        call_command("demo", "stuffing", "--seconds", "nan")
