"""The switches page: what is engaged, flipping a switch, and which deciders follow."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

from django.contrib.auth.decorators import permission_required
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods
from django.views.decorators.vary import vary_on_headers

from console.frame import roles
from console.frame.fragments import htmx_details, redirect_to
from console.frame.people import person
from console.frame.permissions import require
from console.frame.sign_in import reauthentication
from console.pages.switches.flip_preview import preview_for
from console.pages.switches.forms import FlipForm
from control.audit.actors import Actor
from control.config import changes, requested
from control.config.gate import NeedsSecondPerson
from control.deciders import acks
from control.errors import ControlError, StoreUnavailable
from control.models import SwitchFlip
from control.switches import switches
from decider.contracts import units
from decider.contracts.config import version_text

_VIEW = "control.view_switchflip"
# Chosen: a week covers the last on-call shift.
ENDED_DAYS = 7
VERBS: tuple[switches.Verb, ...] = ("engage", "extend", "clear")


@dataclass(frozen=True)
class SwitchLine:
    """One switch of the catalogue as it stands."""

    kind: switches.SwitchKind
    flip: SwitchFlip | None
    """The flip in force; None when the switch is clear."""
    last: str
    """When it was last engaged and for how long, in words."""
    ends: str
    """How far off its end is, in words; empty when it has none."""


@dataclass(frozen=True)
class Group:
    """Switches of the same reach, under one heading."""

    name: str
    lines: tuple[SwitchLine, ...]


@dataclass(frozen=True)
class Ended:
    """A flip that is over."""

    label: str
    when: str
    how: str


@dataclass(frozen=True)
class Page:
    """Everything on the page but the propagation panel."""

    groups: tuple[Group, ...]
    engaged: tuple[SwitchLine, ...]
    ended: tuple[Ended, ...]
    may_flip: bool
    who_can: str

    @property
    def headline(self) -> str:
        count = len(self.engaged)
        return (
            "All kill switches are clear"
            if not count
            else f"{count} kill switch{'es' if count > 1 else ''} engaged"
        )


@require_GET
@permission_required(_VIEW, raise_exception=True)
def page(request: HttpRequest) -> HttpResponse:
    """Show all switches, widest first, with what is engaged on top."""
    context = {"page": "switches", "switches": switches_page(person(request)), **_reached()}
    return render(request, "control/switches.html", context)


@require_GET
@permission_required(_VIEW, raise_exception=True)
def propagation(request: HttpRequest) -> HttpResponse:
    """Show which deciders have applied the newest config."""
    return render(request, "control/propagation.html", _reached())


@require_http_methods(["GET", "POST"])
@vary_on_headers("HX-Request")
@permission_required(_VIEW, raise_exception=True)
def flip(request: HttpRequest, name: str, verb: str) -> HttpResponse:
    """Show the form that asks before a flip, and make the flip when the form is posted.

    The form is a sheet for htmx, and a page without script. Clearing needs a password of the last
    minutes. Raise PermissionDenied without the permission, Http404 for an unknown switch or verb.
    """
    kind, asked = _asked(request, name, verb)
    # engaging makes things safe and must not wait; clearing is what a thief would do
    if asked == "clear" and (again := reauthentication.ask_again(request)):
        return again
    form = FlipForm(kind, asked, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            there = _flip(asked, name, form, person(request))
        except ControlError as error:
            form.add_error(None, str(error))
        else:
            return redirect_to(request, there)
    context = {
        "page": "switches",
        "kind": kind,
        "verb": asked,
        "form": form,
        "engaged": switches.engaged().get(name),
        "asks": asked == "clear" and switches.waits_for_someone(name, Actor.of(person(request))),
    }
    context["at_least"] = timezone.now() + timedelta(minutes=1)
    # A sheet loads the preview by itself. Extending changes no decision, so it has none.
    if not htmx_details(request) and asked != "extend":
        context["preview"] = preview_for(request, asked)
    template = "control/flip_sheet.html" if htmx_details(request) else "control/flip.html"
    return render(request, template, context, status=422 if form.errors else 200)


@require_GET
@permission_required(_VIEW, raise_exception=True)
def preview(request: HttpRequest, name: str, verb: str) -> HttpResponse:
    """Show what the flip would have changed in the last hour.

    The preview loads by its own request, so that the form never waits for it.
    """
    _, asked = _asked(request, name, verb)
    return render(
        request, "control/preview.html", {"preview": preview_for(request, asked), "verb": asked}
    )


def switches_page(user: User) -> Page:
    """Read the page for this person."""
    now = timezone.now()
    there, last = switches.engaged(now), switches.last_flips()
    lines = [
        _line(kind, there.get(name), last.get(name), now)
        for name, kind in switches.CATALOGUE.items()
    ]
    ended = switches.ended(now - timedelta(days=ENDED_DAYS), now)
    return Page(
        groups=tuple(
            Group(name, tuple(of)) for name, of in groupby(lines, key=lambda line: line.kind.group)
        ),
        engaged=tuple(line for line in lines if line.flip is not None),
        ended=tuple(_ended(row, now) for row in ended),
        may_flip=switches.may_flip(user),
        who_can=roles.who_can(switches.PERMISSION),
    )


def _line(
    kind: switches.SwitchKind, flip: SwitchFlip | None, last: SwitchFlip | None, now: datetime
) -> SwitchLine:
    """Return a switch as the page shows it now."""
    ends = (
        f"ends in {units.span(flip.until - now)}"
        if flip is not None and flip.until is not None
        else ""
    )
    return SwitchLine(kind, flip, _last(last, now), ends)


def _asked(request: HttpRequest, name: str, verb: str) -> tuple[switches.SwitchKind, switches.Verb]:
    """Return the switch and verb of the address. Raise PermissionDenied, or Http404 if unknown."""
    require(request, switches.check_may_flip, switches.PERMISSION)
    for known in VERBS:
        if known == verb and name in switches.CATALOGUE:
            return switches.kind(name), known
    raise Http404


def _flip(verb: switches.Verb, name: str, form: FlipForm, user: User) -> str:
    """Make the flip, or ask for it where it needs a second person; return the address to go to.
    Raise ControlError when it is refused or the store does not answer.
    """
    reason, by = form.cleaned_data["reason"], Actor.of(user)
    try:
        switches.flip(verb, name, by=by, reason=reason, until=form.until)
    except NeedsSecondPerson as held:
        made = requested.ask(held, by=user, reason=reason)
        return reverse("approval", args=[made.pk])
    return reverse("switches")


def _reached() -> dict[str, object]:
    """Return the panel's template variables: which deciders have applied the newest config.

    `reached` is None when there is no config version, or when Valkey does not answer. In the second
    case `reached_error` says so in a sentence.
    """
    if (row := changes.latest()) is None:
        return {"reached": None, "reached_error": ""}
    try:
        return {"reached": acks.propagation(row, time.time()), "reached_error": ""}
    except StoreUnavailable:
        state = (
            "was published" if row.published_at else "is not published; that is retried every 2 s"
        )
        said = (
            f"Valkey does not answer, so acks cannot be read. Config {version_text(row.version)}"
            " is committed and"
            f" {state}."
        )
        return {"reached": None, "reached_error": said}


def _last(row: SwitchFlip | None, now: datetime) -> str:
    """Say when a switch was last engaged, and for how long."""
    if row is None:
        return "Never"
    if (end := row.end(now)) is None:
        return f"Since {_day(row.engaged_at, now)}"
    return f"{_day(row.engaged_at, now)}, {units.span(end - row.engaged_at)}"


def _ended(row: SwitchFlip, now: datetime) -> Ended:
    """Return a flip that is over, in words."""
    end = row.end(now) or now
    kind = switches.CATALOGUE.get(row.name)
    last = f"{end:%H:%M}" if end.date() == row.engaged_at.date() else _day(end, now)
    how = f"Cleared by {row.ended_by}" if row.ended_by else f"Ended by itself. Engaged by {row.by}"
    return Ended(
        kind.label if kind else row.name, f"{_day(row.engaged_at, now)} to {last} UTC", how
    )


def _day(at: datetime, now: datetime) -> str:
    """Write a time, with the day unless it is today."""
    return f"{at:%H:%M}" if at.date() == now.date() else f"{at.day} {at:%b, %H:%M}"
