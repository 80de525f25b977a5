"""`manage.py demo stuffing` and `manage.py demo rotation`: attacks on the running demo."""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser
from urllib.parse import quote

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from console.local.clients import clients_signer
from learning.traffic.attackers import ATTACKERS, Report, attack
from learning.traffic.client import GatewayClient, GatewayError

# Seconds. Chosen: long enough to see the first refusals and how the attack goes on after them.
USUAL_S = 180.0


class Command(BaseCommand):
    help = (
        "Attacks the demo that `make run` started: stuffing tries leaked credentials at the"
        " sign-in; rotation does the same and takes a new app id after 8 refusals. It prints what"
        " got through and the page on which to watch it."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("attack", choices=sorted(ATTACKERS))
        parser.add_argument("--seconds", type=float, default=USUAL_S, help="how long it lasts")
        parser.add_argument(
            "--gateway",
            default=f"http://127.0.0.1:{settings.SLUICE_PORTS['gateway']}",
            metavar="URL",
        )

    def handle(self, *, attack: str, seconds: float, gateway: str, **options: object) -> None:
        if not 1.0 <= seconds <= 86_400.0:
            raise CommandError(f"--seconds must be from 1 to 86400, but is {seconds:g}.")
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
    return f"http://127.0.0.1:{settings.SLUICE_PORTS['console']}/{kind}/{quote(name)}"
