"""Flip a switch while PostgreSQL or Valkey is down, and import the flip into PostgreSQL afterwards.

With PostgreSQL down, the next document is made from the newest signed one in Valkey (or on a node's
disk), signed, published and journalled. `reconcile` later stores its row, its audit entry and its
place in the history. When another change has taken the version number meanwhile, it makes the flip
again as a newer version.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from django.conf import settings
from django.utils import timezone

from control import locks
from control.audit import chain
from control.audit.actors import SYSTEM, Actor
from control.config import changes, gate
from control.config.gate import Wanted
from control.deciders import keys, publish
from control.errors import ControlError, KeysError, Refused, StoreUnavailable
from control.locks import Lock
from control.models import ConfigVersion
from control.switches import offline_journal, switches
from decider.contracts import config as document
from decider.contracts.config import Config, ConfigError, in_force, version_text
from decider.contracts.files import write_atomically

log = logging.getLogger(__name__)

NODE_FILES = ("config.bin", "switch.bin")
# Tries to publish a flip. Chosen: while PostgreSQL is down only other operators' flips compete, and
# each try begins from the newest document.
TRIES = 5
# The reason in the audit log for taking over a document. The operator's own reason is in a journal
# on another machine; here only the signature vouches for the document.
ADOPTED = "Found in the config store, signed with this installation's key"


@dataclass(frozen=True)
class Reached:
    """How far a flip without PostgreSQL was spread."""

    version: int
    made_at: datetime
    in_store: bool
    files: tuple[Path, ...]
    journal: Path


def flip(
    verb: switches.Verb,
    name: str,
    *,
    by: Actor,
    reason: str,
    until: datetime | None,
    files: list[Path] | None,
) -> Reached:
    """Sign and spread a flip without PostgreSQL: through Valkey, and into `files` when given.

    Raise Refused for an impossible flip, ControlError when the flip could not be signed, spread or
    journalled.
    """
    reason = chain.check_reason(reason)
    switches.check_until(until)
    for _ in range(TRIES):
        entry = _signed_flip(verb, name, by, reason, until)
        in_store = _push(entry.signed, entry.version, needed=files is None)
        if in_store is False:
            # someone published in between: begin again from their document
            continue
        written = tuple(write_file(path, entry.signed) for path in files or [])
        # journalled last: a flip that was spread nowhere must not be imported later
        journal = offline_journal.write(entry)
        made_at = datetime.fromtimestamp(entry.at, UTC)
        return Reached(entry.version, made_at, bool(in_store), written, journal)
    raise ControlError(
        "Others were publishing at the same time; the switch was not flipped. Try again."
    )


def _signed_flip(
    verb: switches.Verb, name: str, by: Actor, reason: str, until: datetime | None
) -> offline_journal.Entry:
    """Return a flip of the newest document, signed, as the journal keeps it. Raise Refused for an
    impossible flip, ControlError when there is no document to begin from.
    """
    now, end = timezone.now().timestamp(), until.timestamp() if until else None
    base = newest_signed()
    edited = switches.edited(base, verb, name, end)
    new = msgspec.structs.replace(edited, version=base.version + 1, issued_at=now)
    return offline_journal.Entry(
        at=now,
        verb=verb,
        name=name,
        reason=reason,
        until=end,
        by=by.name,
        version=new.version,
        signed=document.sign(new, keys.load_signing_key(settings.SLUICE_KEYS)),
    )


def newest_signed() -> Config:
    """Return the newest document signed with our key, in Valkey or on the disk of a node here.
    Raise ControlError when there is none.
    """
    found: list[Config] = []
    try:
        if (kept := publish.held()) is not None:
            found.append(kept[0])
    except StoreUnavailable as error:
        log.info("looking for config documents on disk only: %s", error)
    # read disks too: when Valkey is empty or holds an older document, a node's disk is newer
    trusted = keys.load_public_keys(settings.SLUICE_KEYS)
    for path in (
        p for name in NODE_FILES for p in (settings.SLUICE_VAR / "nodes").glob(f"*/{name}")
    ):
        try:
            found.append(document.verify(path.read_bytes(), trusted))
        except (OSError, ConfigError) as error:
            log.warning("%s is not used as a config document: %s", path, error)
    if not found:
        raise ControlError(
            f"No config document signed with our key was found in Valkey or in"
            f" {settings.SLUICE_VAR / 'nodes'}, so there is no document to change."
        )
    return max(found, key=lambda config: config.version)


def node_files(patterns: list[str]) -> list[Path]:
    """Return the paths of switch files that fit patterns such as var/nodes/*/switch.bin, which is
    also the default. The directories must exist, the files need not. Raise Refused when a pattern
    matches no directory.
    """
    paths: list[Path] = []
    for pattern in patterns or [str(settings.SLUICE_VAR / "nodes" / "*" / "switch.bin")]:
        wanted = Path(pattern).absolute()
        # the directory is matched, not the file: a node that was never switched off has no file yet
        root = Path(wanted.anchor)
        here = [d for d in root.glob(str(wanted.parent.relative_to(root))) if d.is_dir()]
        if not here:
            raise Refused(f"There is no node directory that matches {wanted.parent}.")
        paths += [d / wanted.name for d in here]
    return paths


def write_file(path: Path, signed: bytes) -> Path:
    """Replace a node's switch file in one step and return its path. Raise ControlError when it
    cannot be written.
    """
    try:
        write_atomically(path, signed)
    except OSError as error:
        raise ControlError(f"{path} cannot be written: {error.strerror or error}.") from error
    return path


def reconcile() -> list[str]:
    """Import the flips that were made without PostgreSQL. Return a sentence for each. Raise
    ControlError when a journal entry cannot be read or verified.
    """
    done = [_take_in(path) for path in offline_journal.waiting()]
    try:
        kept = publish.held()
    except StoreUnavailable as error:
        log.info("cannot look for a document to take over: %s", error)
        return done
    adopted = _adopt(*kept) if kept else ""
    return done + ([adopted] if adopted else [])


def _push(signed: bytes, version: int, *, needed: bool) -> bool | None:
    """Return True when Valkey took the document, False when it holds a newer one, None when it does
    not answer and is not `needed`. Raise ControlError when it does not answer and is needed.
    """
    try:
        return publish.push(signed, version)
    except StoreUnavailable as error:
        if needed:
            raise ControlError(
                f"{error} Use --file to write the switch into the nodes' directories on their"
                " hosts."
            ) from error
        return None


def _take_in(path: Path) -> str:
    entry = offline_journal.read_entry(path)
    verb, by, until = entry.verb, Actor(entry.by, entry.by, "Shell"), _time(entry.until)
    with chain.changing():
        locks.hold(Lock.CONFIG)
        latest = changes.latest()
        # a run that was killed between commit and `settle` leaves an entry that is stored already
        if ConfigVersion.objects.filter(version=entry.version, signed=entry.signed).exists():
            said = f"Config {version_text(entry.version)} was imported already."
        elif latest is not None and entry.version > latest.version:
            _insert(entry, by, until)
            said = (
                f"Imported config {version_text(entry.version)}: {by.name}"
                f" {switches.summary(verb, entry.name, until)}."
            )
        else:
            said = _again(entry, by, until)
    # after the commit: an entry moved away before it would be lost with a rollback
    offline_journal.settle(path)
    return said


def _insert(entry: offline_journal.Entry, by: Actor, until: datetime | None) -> None:
    """Store the document exactly as it was signed and published. Raise ControlError."""
    try:
        config = document.verify(entry.signed, keys.load_public_keys(settings.SLUICE_KEYS))
    except (ConfigError, KeysError) as error:
        raise ControlError(
            f"The document for config {version_text(entry.version)} in the journal"
            f" {offline_journal.directory()}"
            f" cannot be verified: {str(error).removesuffix('.')}."
        ) from error
    at = datetime.fromtimestamp(entry.at, UTC)
    summary = f"{switches.summary(entry.verb, entry.name, until)}, while PostgreSQL was down"
    wanted = Wanted(by, entry.reason, f"switch.{entry.verb}", entry.name, summary)
    row = _store(config, entry.signed, wanted, at)
    switches.record(entry.verb, entry.name, by=by, reason=entry.reason, until=until, version=row)


def _store(config: Config, signed: bytes, wanted: Wanted, at: datetime) -> ConfigVersion:
    """Store a document that deciders follow already, with its entry in the audit log; where it
    needed a second person, a review waits for one.
    """
    clearance = gate.pass_through(changes.current(), config, wanted, now=at, offline=True)
    row = changes.store(
        config,
        by=wanted.by,
        reason=wanted.reason,
        made_at=at,
        signed=signed,
        clearance=clearance,
    )
    changes.note(wanted, row, clearance)
    return row


def _again(entry: offline_journal.Entry, by: Actor, until: datetime | None) -> str:
    """Make a flip again as the next version, because its version number is taken. Return a sentence
    about what was done.
    """
    try:
        row = switches.flip_again(entry.verb, entry.name, by=by, reason=entry.reason, until=until)
    except Refused as error:
        # such as clearing a switch that has ended meanwhile: recorded, so that no flip is lost
        _note_superseded(entry, by, until, str(error))
        return f"The flip of config {version_text(entry.version)} no longer applies: {error}"
    return (
        f"Config {version_text(entry.version)} was taken by another change; made the flip again"
        " as config"
        f" {row.version}."
    )


def _note_superseded(
    entry: offline_journal.Entry, by: Actor, until: datetime | None, why: str
) -> None:
    chain.append(
        by=by,
        reason=entry.reason,
        action="switch.superseded",
        subject=entry.name,
        summary=(
            f"{switches.summary(entry.verb, entry.name, until)} while PostgreSQL was down,"
            " which no longer applies"
        ),
        after={"version": entry.version, "why": why},
    )


def _adopt(config: Config, signed: bytes) -> str:
    """Take over the switches of a document in Valkey that is signed with our key but not in
    PostgreSQL: its journal is not on this machine. Return a sentence, "" when there is no such
    document.
    """
    with chain.changing():
        locks.hold(Lock.CONFIG)
        latest = changes.latest()
        if latest is None or config.version < latest.version or signed == bytes(latest.signed):
            return ""
        if config.version == latest.version:
            return _merge(config)
        return _take_over(config, signed)


def _merge(config: Config) -> str:
    """Make a version with the switches of another document that has the number of our newest one.

    Deciders that run that document ignore ours of the same number, so the new version has a higher
    one.
    """
    row = changes.make_version(
        by=SYSTEM,
        reason=ADOPTED,
        action="config.adopt",
        subject="config",
        summary=(
            f"took over the switches of another config {version_text(config.version)}, published"
            " while"
            " PostgreSQL was down"
        ),
        edit=lambda ours: msgspec.structs.replace(ours, switches=config.switches),
        within=lambda made, _: _follow(config, made),
        offline=True,
    )
    return (
        f"Took over the switches of another config {version_text(config.version)} as config"
        f" {version_text(row.version)}."
    )


def _take_over(config: Config, signed: bytes) -> str:
    """Store a document that is newer than all in PostgreSQL, exactly as it was signed."""
    at = datetime.fromtimestamp(config.issued_at, UTC)
    said = f"took over config {version_text(config.version)}, published while PostgreSQL was down"
    row = _store(config, signed, Wanted(SYSTEM, ADOPTED, "config.adopt", "config", said), at)
    _follow(config, row)
    return f"Took over config {version_text(config.version)} from the config store."


def _follow(config: Config, row: ConfigVersion) -> None:
    """Write the flips that an adopted document shows into the switch history."""
    now = row.made_at
    wanted = {s.name: _time(s.until) for s in in_force(config.switches, now.timestamp())}
    there = switches.engaged(now)
    for name in there.keys() - wanted.keys():
        switches.record("clear", name, by=SYSTEM, reason=ADOPTED, until=None, version=row)
    for name, until in wanted.items():
        verb: switches.Verb = "extend" if name in there else "engage"
        switches.record(verb, name, by=SYSTEM, reason=ADOPTED, until=until, version=row)


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
