"""`manage.py seed`: makes what a new installation starts with.

These are the keys, the demo world's tenants and apps, the first config document, and the profiles.
"""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import UTC, datetime

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from control.audit import chain
from control.audit.actors import SYSTEM
from control.config import changes
from control.deciders import keys, publish
from control.errors import ControlError
from control.models import App, Tenant
from decider.contracts.config import Sampling
from decider.contracts.store import Profile
from learning.traffic import world

# Seed of the demo world. The demo traffic uses the same seed, so its apps are registered.
SEED = 7
# Apps of the demo world. Chosen: enough for peers in every tier, and seeded within seconds.
APPS = 3000
# What is kept of decisions about the demo's traffic. Chosen: its attackers never tire, and their
# blocks would be seven in ten of what it stores; most of the rest are admits, which are alike. So
# it fills a disk a third as fast (docs/disk.md). Other installations have the defaults.
OF_DEMO_TRAFFIC = Sampling(admit=0.01, block=0.05)


class Command(BaseCommand):
    help = (
        "Makes the keys, the demo world's tenants and apps, and the first config document. Keeps"
        " what exists already."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--seed", type=int, default=SEED)
        parser.add_argument("--apps", type=int, default=APPS)
        parser.add_argument(
            "--demo-traffic",
            action="store_true",
            help="keep few blocks and admits, as the demo's attackers never tire",
        )

    def handle(self, *, seed: int, apps: int, demo_traffic: bool, **options: object) -> None:
        rates = OF_DEMO_TRAFFIC if demo_traffic else None
        try:
            keys.ensure(settings.SLUICE_KEYS)
            made = populate(world.draw_population(seed, apps))
            first = changes.first(by=SYSTEM, reason="A new installation", sampling=rates)
            if made or first:
                did = f"published with {publish.rebuild():,} profiles"
            else:
                did = publish.pending() or "nothing had to be published"
        except (ControlError, ValueError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(
            f"{made:,} apps added, {App.objects.count():,} apps of {Tenant.objects.count():,}"
            " tenants in all."
        )
        self.stdout.write(f"Config {changes.current().version} is the newest; {did}.")


def populate(population: world.Population) -> int:
    """Add the tenants and apps that do not exist yet. Return how many apps were added.

    An existing app stays as it is, because operators may have changed it.
    """
    known = set(App.objects.values_list("id", flat=True))
    fresh = [profile for profile in population.profiles() if profile.app not in known]
    if not fresh:
        return 0
    with chain.changing():
        Tenant.objects.bulk_create(
            (Tenant(id=slug, name=name) for slug, name in population.tenants().items()),
            ignore_conflicts=True,
        )
        App.objects.bulk_create((_app(profile) for profile in fresh), batch_size=1000)
        chain.append(
            by=SYSTEM,
            reason="The demo world",
            action="app.import",
            subject="apps",
            summary=f"added {len(fresh):,} apps",
            after={"apps": len(fresh), "seed": population.seed},
        )
    return len(fresh)


def _app(profile: Profile) -> App:
    return App(
        id=profile.app,
        name=profile.name,
        tenant_id=profile.tenant,
        tier=profile.tier,
        created_at=datetime.fromtimestamp(profile.created_at, UTC),
        verified=profile.verified,
        cohort_prior=profile.cohort_prior,
        abuse_history=profile.abuse_history,
        chargeback_history=profile.chargeback_history,
        false_throttle_history=profile.false_throttle_history,
    )
