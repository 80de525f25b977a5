"""Imports of apps: many at once, all or nothing, by id. A million take less than a minute."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from itertools import islice
from pathlib import Path

from django.db import connection
from django.utils import timezone
from msgspec import UNSET

from control import locks
from control.approvals.models import Request
from control.audit import chain
from control.audit.actors import Actor
from control.config import beside
from control.config.gate import Wanted
from control.deciders import publish
from control.directory.app_rows import MOST_FAULTS, AppLine, BadRows, Fault
from control.errors import Conflict
from control.locks import Lock
from control.models import App, AppImport
from decider.contracts.vocabulary import Tier

Rows = dict[str, tuple[int, AppLine]]
Advance = Callable[[int], object]


class _DryRunError(Exception):
    """Undoes what a dry run did."""


# Apps of one statement. Chosen: a megabyte or two, so that neither side holds much.
BATCH = 10_000
# How long an import's own program may take to tell deciders. Chosen: ten times what a million apps
# take.
TELLS_ITSELF = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did."""

    number: int
    """Of the import, `AppImport.pk`."""
    added: int
    changed: int
    same: int
    """Apps that were stored just so already."""
    tenants: int
    """Tenants that were added."""


def import_apps(
    rows: Rows,
    *,
    by: Actor,
    reason: str,
    digest: str,
    make_tenants: bool = False,
    dry_run: bool = False,
    advance: Advance | None = None,
) -> Imported:
    """Add and change the apps of `rows` (from `app_rows.read`) in one transaction, and return what
    was done. Fields that a row leaves out stay as they are.

    `digest`: of the file, SHA-256 in hexadecimal. `make_tenants`: add the tenants that there are
    not, with their id for a name. `dry_run`: do it all and keep nothing. `advance` gets the number
    of rows after each step. Raise BadRows for rows that cannot be stored; then nothing is.

    Deciders are told by `publish_import`, after that. Raise NeedsSecondPerson where four eyes is on
    and nobody was asked about this file, NotApproved where nobody approved it yet.
    """
    reason, now = chain.check_reason(reason), timezone.now()
    wanted = Wanted(by, reason, "app.import", "apps", f"imported {len(rows):,} apps")
    with suppress(_DryRunError), chain.changing():
        # two imports of the same apps would wait for each other's rows in turn
        locks.hold(Lock.APPS)
        made = _make_tenants(rows) if make_tenants else 0
        _check(rows)
        asked = beside.import_of(digest, len(rows), make_tenants)
        clearance = beside.NOTHING if dry_run else beside.pass_through(asked, wanted, now)
        row = AppImport.objects.create(at=now, by=by.name, digest=digest, rows=len(rows))
        added = changed = 0
        for some in _batches(sorted(rows)):
            new, others = _upsert([rows[app][1] for app in some], row.pk)
            added, changed = added + new, changed + others
            if advance is not None:
                advance(len(some))
        AppImport.objects.filter(pk=row.pk).update(added=added, changed=changed)
        same = len(rows) - added - changed
        done = Imported(row.pk, added, changed, same, made)
        chain.append(
            by=by,
            reason=reason,
            action="app.import",
            subject="apps",
            summary=f"imported apps: {added:,} added, {changed:,} changed, {same:,} as before"
            + clearance.mark,
            after={
                "file": digest,
                "import": row.pk,
                "added": added,
                "changed": changed,
                "tenants_added": made,
                **beside.noted(clearance),
            },
        )
        if dry_run:
            raise _DryRunError
    return done


def wait_for_file(row: Request) -> None:
    """Leave an approved import until its file is imported again (an effect of approvals): nobody
    keeps the file. Raise Conflict.
    """
    raise Conflict(f"{row} is made when the same file is imported again.")


def _make_tenants(rows: Rows) -> int:
    """Add the tenants that are named and are not there. Return how many were added."""
    named = sorted({row.tenant for _, row in rows.values() if row.tenant is not UNSET})
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO control_tenant (id, name) SELECT n, n FROM unnest(%s::text[]) n"
            " ON CONFLICT DO NOTHING",
            [named],
        )
        return int(cursor.rowcount)


def _check(rows: Rows) -> None:
    """Raise BadRows where a new app lacks its tenant or tier, or an app's tenant is not there."""
    faults: list[Fault] = []
    count = 0
    for line, says in sorted(_wrong(rows)):
        count += 1
        if len(faults) < MOST_FAULTS:
            faults.append(Fault(line, says))
    if faults:
        raise BadRows(faults, count)


def _wrong(rows: Rows) -> Iterator[tuple[int, str]]:
    with connection.cursor() as cursor:
        short = [a for a, (_, row) in rows.items() if row.tenant is UNSET or row.tier is UNSET]
        for some in _batches(short):
            cursor.execute(
                "SELECT n FROM unnest(%s::text[]) n"
                " WHERE NOT EXISTS (SELECT FROM control_app a WHERE a.id = n)",
                [list(some)],
            )
            for (app,) in cursor.fetchall():
                line, row = rows[app]
                lacks = " and ".join(n for n in ("tenant", "tier") if getattr(row, n) is UNSET)
                yield line, f"{app} is a new app: name its {lacks}"
        named = {row.tenant for _, row in rows.values() if row.tenant is not UNSET}
        cursor.execute(
            "SELECT n FROM unnest(%s::text[]) n"
            " WHERE NOT EXISTS (SELECT FROM control_tenant t WHERE t.id = n)",
            [list(named)],
        )
        unknown = {tenant for (tenant,) in cursor.fetchall()}
    for line, row in rows.values() if unknown else ():
        if row.tenant in unknown:
            yield (
                line,
                f"there is no tenant {row.tenant}: add it first, or have tenants added",
            )


@cache
def _upsert_sql() -> str:
    path = Path(__file__).parent / "resources" / "upsert_apps.sql"
    return path.read_text(encoding="ascii")


def _upsert(some: list[AppLine], number: int) -> tuple[int, int]:
    """Add and change these apps. Return how many were added, and how many of the others changed."""

    def column(name: str) -> list[object]:
        return [None if (v := getattr(row, name)) is UNSET else v for row in some]

    tiers = [None if row.tier is UNSET else int(Tier[row.tier.upper()]) for row in some]
    prior = App._meta.get_field("cohort_prior").default
    with connection.cursor() as cursor:
        cursor.execute(
            _upsert_sql(),
            [
                [row.id for row in some],
                column("tenant"),
                tiers,
                column("name"),
                column("verified"),
                column("created_at"),
                column("cohort_prior"),
                prior,
                number,
            ],
        )
        added, changed = cursor.fetchone()
    return int(added), int(changed)


def _batches(items: Iterable[str], size: int = BATCH) -> Iterator[list[str]]:
    left = iter(items)
    while some := list(islice(left, size)):
        yield some


def publish_import(number: int, advance: Advance | None = None) -> int:
    """Tell deciders of the apps that an import added or changed, and return how many those are.
    Raise StoreUnavailable; then `pending` tells them later.
    """
    apps = App.objects.filter(imported=number).order_by("pk")
    told = publish.push_many(apps.iterator(chunk_size=BATCH), advance)
    AppImport.objects.filter(pk=number).update(published_at=timezone.now())
    return told


def pending(now: datetime) -> str:
    """Tell deciders of imports whose program ended before it had told them. Return what was done in
    a few words, "" when there was nothing to do. Raise StoreUnavailable.
    """
    said = []
    waiting = AppImport.objects.filter(published_at=None, at__lt=now - TELLS_ITSELF)
    for number in waiting.order_by("pk").values_list("pk", flat=True):
        said.append(f"told deciders of {publish_import(number):,} imported apps")
    return "; ".join(said)
