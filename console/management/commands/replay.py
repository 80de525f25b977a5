"""`manage.py replay FILE...`: replays access logs through an engine, or through the gateway."""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import redis
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from tqdm import tqdm

from console.local.clients import clients_signer
from control.deciders import keys
from control.errors import ControlError
from decider.contracts import config, defaults, store
from decider.contracts.artifact import ArtifactError
from decider.contracts.config import Config, ConfigError
from decider.contracts.sealed import profiles
from decider.contracts.sealed.profiles import ProfileError
from decider.contracts.store import Profile
from decider.engine.engine import Engine
from decider.scoring.model import Model
from learning.logs import formats, playback
from learning.logs.access_log import SKIPPED_USUAL, LogError
from learning.logs.playback import NothingReadError, ReplayError, ReplaySummary

# Apps that the engine can track. Chosen: more than any one log is likely to name.
CAPACITY = 200_000
# Status of a run that skipped too many lines. Not 1, with which a run ends that did nothing, nor 2,
# with which argparse refuses its arguments.
SKIPPED_STATUS = 3


class Command(BaseCommand):
    help = (
        "Replays access logs, also gzipped. Without --through-envoy, an engine in this process"
        " decides with the live config and model, as fast as it can; times are shifted so that each"
        " log ends now. Each decision can be looked up by its id or its app, and none counts as"
        " live traffic. Client addresses become pseudonyms. Lines that cannot be read, that name no"
        " client address, or whose time lies more than a day from the median of the lines around"
        " them (or before 1990) are skipped and counted. A run that skips over"
        f" {SKIPPED_USUAL:.0%} of the lines says so first and ends with status {SKIPPED_STATUS}."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
        parser.add_argument(
            "--format",
            choices=formats.NAMES,
            default=formats.AUTO,
            help=(
                f"auto tells it by the first {formats.SAMPLE} lines; nginx is combined; "
                + "; ".join(f"{one.name}: {one.label}" for one in formats.FORMATS)
            ),
        )
        parser.add_argument("--limit", type=int, default=None, help="stop after this many requests")
        parser.add_argument(
            "--through-envoy",
            action="store_true",
            help="send real requests to the gateway instead, which count as live traffic",
        )
        parser.add_argument(
            "--speed",
            type=float,
            default=1.0,
            help="with --through-envoy: how many times as fast as in the log",
        )
        parser.add_argument(
            "--gateway",
            default=f"http://127.0.0.1:{settings.SLUICE_PORTS['gateway']}",
            metavar="URL",
        )

    def handle(self, *, files: Sequence[Path], limit: int | None, **options: object) -> None:
        if limit is not None and limit < 1:
            raise CommandError(f"--limit must be at least 1, but is {limit}.")
        try:
            keys.ensure(settings.SLUICE_KEYS)
            key = keys.load_token_key(settings.SLUICE_KEYS)
            summary = self._play(files, key, limit, options)
        except NothingReadError as error:
            raise CommandError(str(error), returncode=SKIPPED_STATUS) from error
        except (
            LogError,
            ReplayError,
            ControlError,
            ConfigError,
            ArtifactError,
            ValueError,
        ) as error:
            raise CommandError(str(error)) from error
        except redis.RedisError as error:
            raise CommandError(
                f"The Valkey of VALKEY_URL does not answer: {error}. Start it with `make run`."
            ) from error
        self.stdout.write(playback.describe_summary(summary))
        if summary.report.doubtful:
            raise SystemExit(SKIPPED_STATUS)

    def _play(
        self, files: Sequence[Path], key: bytes, limit: int | None, options: dict[str, object]
    ) -> ReplaySummary:
        form = str(options["format"])
        client = redis.Redis.from_url(settings.VALKEY_URL)
        offline = (
            None
            if options["through_envoy"]
            else playback.OfflineReplay(
                self._engine(client, key), _publisher(client), _lookup(client, key)
            )
        )
        span = playback.survey_logs(files, key, form, limit)
        with tqdm(
            total=span.requests, unit=" requests", desc="Replay", leave=False, disable=None
        ) as bar:
            if offline is not None:
                return offline.run(files, key, form, limit, span=span, advance=bar.update)
            sending = playback.replay_through_gateway(
                files,
                key,
                str(options["gateway"]),
                float(str(options["speed"])),
                form,
                limit,
                span,
                bar.update,
                clients_signer(),
            )
            return asyncio.run(sending)

    def _engine(self, client: redis.Redis, key: bytes) -> Engine:
        """Return an engine of its own with the published config and the live model.

        Without a published config the starting config decides, without a model the fallback
        limiter; a line on standard error says so.
        """
        current = self._config(client)
        model = self._model(client, current)
        engine = Engine(
            node=playback.NODE,
            region=settings.SLUICE_REGION,
            token_key=key,
            capacity=CAPACITY,
            keep_all=True,  # so that every refusal of the summary has a page
        )
        engine.apply(current, model)
        return engine

    def _config(self, client: redis.Redis) -> Config:
        data = _stored(client, store.CONFIG_KEY)
        if data is None:
            self.stderr.write("No config is published: the starting config decides.")
            return defaults.config()
        return config.verify(data, keys.load_public_keys(settings.SLUICE_KEYS))

    def _model(self, client: redis.Redis, current: Config) -> Model | None:
        if current.model is None:
            self.stderr.write("No model is live: the fallback limiter decides.")
            return None
        path = settings.SLUICE_MODELS / current.model.digest
        data = (
            path.read_bytes()
            if path.is_file()
            else _stored(client, store.MODEL_PREFIX + current.model.digest)
        )
        if data is None:
            self.stderr.write(
                f"The live model {current.model.name} is neither in {settings.SLUICE_MODELS} nor in"
                " Valkey: the fallback limiter decides."
            )
            return None
        return Model.load(data, current.model.digest)


def _stored(client: redis.Redis, key: str) -> bytes | None:
    data = client.get(key)
    # redis's types allow text too, but only a client with decode_responses returns text
    return data.encode() if isinstance(data, str) else data


def _publisher(client: redis.Redis) -> playback.PublishBatch:
    return lambda batch: client.xadd(
        store.EVENTS_STREAM, {"b": batch}, maxlen=store.EVENTS_MAXLEN, approximate=True
    )


def _lookup(client: redis.Redis, key: bytes) -> playback.LookUpProfiles:
    profile_key = profiles.derive_key(key)

    def look_up(apps: Sequence[str]) -> list[Profile]:
        found = []
        for data in client.mget([store.PROFILE_PREFIX + app for app in apps]):
            # what the console did not make is as unknown here as it is to a decider
            with suppress(ProfileError):
                if data is not None:
                    raw = data.encode() if isinstance(data, str) else data
                    found.append(profiles.unseal(raw, profile_key))
        return found

    return look_up
