"""`manage.py first_model`: makes the model that ships live in a new installation."""

from __future__ import annotations

from argparse import ArgumentParser

from django.core.management.base import BaseCommand, CommandError
from tqdm import tqdm

from control.audit.actors import SYSTEM
from control.config import changes
from control.errors import ControlError, Refused
from learning.training import shipped, train
from learning.training.leakage import TrainingError
from rollouts import registry
from rollouts.models import ModelVersion

REASON = "The first model of a new installation, trained on simulated traffic"


class Command(BaseCommand):
    help = (
        "Registers the model that ships with Sluice and makes it live, unless one is live already."
        " Where its scores do not come out bit for bit on this machine, or with --train, a model is"
        " trained on simulated traffic instead, which takes minutes."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--train",
            action="store_true",
            help="train a model instead of taking the one that ships",
        )
        parser.add_argument("--seed", type=int, default=7, help="seed of the training")
        parser.add_argument(
            "--seconds",
            type=float,
            default=train.SECONDS,
            help="simulated seconds of each run of apps in the training",
        )

    def handle(self, *, train: bool, seed: int, seconds: float, **options: object) -> None:
        try:
            # These errors are expected: their sentence is enough, without a traceback.
            self._make(own=train, seed=seed, seconds=seconds)
        except (ControlError, TrainingError) as error:
            raise CommandError(str(error)) from error

    def _make(self, *, own: bool, seed: int, seconds: float) -> None:
        # Check before anything else, so that a second run costs nothing.
        ref = changes.current().model
        if ref is not None:
            self.stdout.write(f"{ref.name} v{ref.version} is live already.")
            return
        model = self._train(seed, seconds) if own else self._shipped() or self._train(seed, seconds)
        registry.make_live(model, by=SYSTEM, reason=REASON)
        auc = model.card["metrics"]["risk_auc"]
        self.stdout.write(f"{model} is live. On held-out apps its risk AUC is {auc:.3f}.")

    def _shipped(self) -> ModelVersion | None:
        """Register the model that ships; None when it cannot be used here."""
        try:
            return registry.register(shipped.read(), by=SYSTEM, reason=REASON)
        except (Refused, OSError) as error:
            self.stderr.write(
                f"The model that ships cannot be used here: {error} A new one is trained, which"
                " takes minutes."
            )
            return None

    def _train(self, seed: int, seconds: float) -> ModelVersion:
        with tqdm(
            total=train.seconds_to_play(seconds),
            unit="s",
            desc="Simulating",
            leave=False,
            bar_format="{l_bar}{bar}| {n:.0f} s",
        ) as bar:
            trained = train.train(seed, by="System", seconds=seconds, progress=bar.update)
        return registry.register(trained.data, by=SYSTEM, reason=REASON)
