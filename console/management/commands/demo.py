"""`manage.py demo stuffing`, `rotation` and `noisy-tenant`: traffic against the running demo, to
be watched on the pages.
"""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser
from urllib.parse import quote

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from console.local.clients import clients_signer
from console.management import noisy_tenant
from console.pages.service.page import tenants_by_hash
from learning.traffic.client import GatewayClient, GatewayError
from learning.traffic.demos.attackers import ATTACKERS, Report, attack

# Seconds. Chosen: long enough to see the first refusals and how the attack goes on after them.
USUAL_S = 180.0
NOISY_TENANT = "noisy-tenant"


class Command(BaseCommand):
    help = (
        "Attacks the demo that `make run` started: stuffing tries leaked credentials at the"
        " sign-in; rotation does the same and takes a new app id after 8 refusals; noisy-tenant"
        " asks for six times its share of a service, beside seven tenants that ask for theirs. It"
        " prints what got through and the page on which to watch it."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("attack", choices=[*sorted(ATTACKERS), NOISY_TENANT])
        parser.add_argument("--seconds", type=float, default=USUAL_S, help="how long it lasts")
        parser.add_argument(
            "--gateway",
            default=f"http://127.0.0.1:{settings.SLUICE_PORTS['gateway']}",
            metavar="URL",
        )

    def handle(self, *, attack: str, seconds: float, gateway: str, **options: object) -> None:
        if not 1.0 <= seconds <= 86_400.0:
            raise CommandError(f"--seconds must be from 1 to 86400, but is {seconds:g}.")
        if attack == NOISY_TENANT:
            self._noisy_tenant(seconds, gateway)
            return
        try:
            report = asyncio.run(self._attack(attack, seconds, gateway))
        except GatewayError as error:
            raise CommandError(
                f"The gateway {gateway} does not answer: {error}. Start it with `make run`."
            ) from error
        except ValueError as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            return
        self.stdout.write(report.describe())
        if report.decision:
            self.stdout.write(
                f"Why the last one was refused: {_page('decisions', report.decision)}"
            )

    def _noisy_tenant(self, seconds: float, gateway: str) -> None:
        run = noisy_tenant.prepared(tenants_by_hash)
        name = noisy_tenant.SERVICE
        self.stdout.write(
            f"{run.noisy.tenant} asks {name} for {run.noisy.pace:.0f} requests a second, seven"
            f" other tenants for {run.quiet[0].pace:.0f} each. Together that is more than it can"
            " do."
        )
        self.stdout.write(f"         who pays and who does not: {_page('services', name)}")
        self.stdout.write(f"         its refusals: {_page('lookup', f'?q={run.noisy.tenant}')}")
        self.stdout.flush()
        try:
            asyncio.run(run.play(gateway, seconds, self._say))
        except GatewayError as error:
            raise CommandError(
                f"The gateway {gateway} does not answer: {error}. Start it with `make run`."
            ) from error
        except ValueError as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            pass
        for line in run.table():
            self.stdout.write(line)

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()

    async def _attack(self, name: str, seconds: float, gateway: str) -> Report:
        attacker, client = ATTACKERS[name](), GatewayClient(gateway, signer=clients_signer())
        shown = ""

        def tell(report: Report) -> None:
            nonlocal shown
            self.stdout.write(report.describe())
            if report.apps[-1] != shown:
                shown = report.apps[-1]
                self.stdout.write(f"         watch it: {_page('apps', shown)}")
            self.stdout.flush()

        try:
            return await attack(attacker, client, seconds, tell)
        finally:
            client.close()


def _page(kind: str, name: str) -> str:
    """Return the address of a page of the console on this machine."""
    return f"http://127.0.0.1:{settings.SLUICE_PORTS['console']}/{kind}/{quote(name, safe='?=/')}"
