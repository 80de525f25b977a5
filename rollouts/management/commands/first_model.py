"""`manage.py first_model`: trains the first risk and value model and makes it live."""

from __future__ import annotations

import time
from argparse import ArgumentParser

from django.core.management.base import BaseCommand, CommandError
from tqdm import tqdm

from control.audit.actors import SYSTEM
from control.config import changes
from control.errors import ControlError
from learning.training import train
from learning.training.leakage import TrainingError
from rollouts import registry

REASON = "The first model of a new installation, trained on simulated traffic"


class Command(BaseCommand):
    help = (
        "Trains a model on simulated, labelled traffic, registers it and makes it live, unless one"
        " is live already."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--seed", type=int, default=7)
        parser.add_argument(
            "--seconds",
            type=float,
            default=train.SECONDS,
            help="simulated seconds of each run of apps",
        )

    def handle(self, *, seed: int, seconds: float, **options: object) -> None:
        try:
            # both errors are expected: their sentence is enough, without a traceback
            self._make(seed, seconds)
        except (ControlError, TrainingError) as error:
            raise CommandError(str(error)) from error

    def _make(self, seed: int, seconds: float) -> None:
        # check before training, which takes by far the longest; a second run then costs nothing
        ref = changes.current().model
        if ref is not None:
            self.stdout.write(f"{ref.name} v{ref.version} is live already.")
            return
        began = time.perf_counter()
        with tqdm(
            total=train.seconds_to_play(seconds),
            unit="s",
            desc="Simulating",
            leave=False,
            bar_format="{l_bar}{bar}| {n:.0f} s",
        ) as bar:
            trained = train.train(seed, by="System", seconds=seconds, progress=bar.update)
        model = registry.register(trained.data, by=SYSTEM, reason=REASON)
        registry.make_live(model, by=SYSTEM, reason=REASON)
        figures = trained.artifact.card.metrics
        took = time.perf_counter() - began
        self.stdout.write(
            f"{model} is live after {took:.0f} s. On held-out apps its risk AUC is"
            f" {figures['risk_auc']:.3f}."
        )
