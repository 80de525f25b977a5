"""The frame around every page: theme, navigation, status strip, commands, and who is signed in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse

from console.frame import app_looks, roles, status_strip
from control.audit import tokens
from decisions.outcomes import disputes

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractUser

THEME_COOKIE = "sluice-theme"
KEYS_COOKIE = "sluice-keys"


@dataclass(frozen=True)
class NavItem:
    """One page in the navigation."""

    page: str
    label: str
    icon: str
    href: str
    key: str
    """Letter after `g` that goes there."""
    count: int = 0
    """Things on that page that need attention."""
    count_word: str = ""
    """What they are, for those who hear the page."""


@dataclass(frozen=True)
class Command:
    """One line of the command palette."""

    group: str
    label: str
    hint: str
    icon: str
    href: str


@dataclass(frozen=True)
class Shell:
    """What `base.html` shows around a page."""

    env: str
    theme: str
    """light, dark, or empty: as the system has it."""
    keys: bool
    """Whether single-key shortcuts are on."""
    at: datetime
    name: str
    role: str
    initials: str
    items: tuple[NavItem, ...]
    commands: tuple[Command, ...]
    strip: status_strip.Strip | None
    ticket: str
    """What this person works on; looks into apps' data are written down with it. Empty when they
    named none.
    """

    @property
    def clock(self) -> str:
        return f"{self.at:%a} {self.at.day} {self.at:%b, %H:%M:%S} UTC"

    @property
    def other_theme(self) -> str:
        return "light" if self.theme == "dark" else "dark"


# Page and url name, label, icon, key, permission to see it.
_PAGES = (
    ("home", "Home", "home", "h", ""),
    ("lookup", "Lookup", "search", "l", "decisions.view_decision"),
    ("switches", "Switches", "switch", "s", "control.view_switchflip"),
    ("disputes", "Disputes", "flag", "w", "decisions.view_dispute"),
)


def of(request: HttpRequest | None, page: str = "") -> Shell:
    """The frame for this request; without one (an error page rendered on its own) only theme and
    name are there.
    """
    user = getattr(request, "user", None)
    signed_in = bool(user is not None and user.is_authenticated)
    cookies = request.COOKIES if request else {}
    theme = cookies.get(THEME_COOKIE, "")
    status = status_strip.read() if signed_in else None
    name = (user.get_full_name() or user.get_username()) if signed_in else ""
    return Shell(
        env=settings.SLUICE_ENV_NAME,
        theme=theme if theme in ("light", "dark") else "",
        keys=cookies.get(KEYS_COOKIE) != "off",
        at=datetime.now(UTC),
        name=name,
        role=roles.label(user) if signed_in else "",
        initials="".join(part[0] for part in name.split()[:2]).upper(),
        items=_items(user, status) if signed_in else (),
        commands=_commands(user) if signed_in else (),
        strip=status,
        ticket=app_looks.ticket(request) if signed_in and request else "",
    )


def _may(user: AbstractUser, permission: str) -> bool:
    return not permission or user.has_perm(permission)


def _items(user: AbstractUser, status: status_strip.Strip | None) -> tuple[NavItem, ...]:
    waiting = disputes.waiting().open if user.has_perm(disputes.ADJUDICATE_PERMISSION) else 0
    counts = {
        "switches": (len(status.fleet.switches) if status and status.fleet else 0, "engaged"),
        "disputes": (waiting, "open"),
    }
    return tuple(
        NavItem(page, label, icon, reverse(page), key, *counts.get(page, (0, "")))
        for page, label, icon, key, permission in _PAGES
        if _may(user, permission)
    )


def _commands(user: AbstractUser) -> tuple[Command, ...]:
    """What can be done and reached from here by this person, actions first."""
    found = []
    if user.has_perm("control.engage_switch"):
        found.append(
            Command(
                "Do",
                "Engage or clear a kill switch",
                "Asks for a reason and an end",
                "switch",
                reverse("switches"),
            )
        )
    if user.has_perm("control.view_switchflip"):
        found.append(
            Command(
                "Do",
                "See which deciders follow",
                "Propagation",
                "live",
                reverse("switches") + "#propagation",
            )
        )
    for page, label, icon, key, permission in _PAGES:
        if _may(user, permission):
            found.append(Command("Go to", label, f"g {key}", icon, reverse(page)))
    if user.has_perm(tokens.PERMISSION):
        found.append(Command("Go to", "API tokens", "Yours", "key", reverse("tokens")))
    return tuple(found)
