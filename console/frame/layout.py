"""The frame around every page: theme, navigation, status strip, commands, and who is signed in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from django.conf import settings
from django.contrib.auth.models import User
from django.http import HttpRequest
from django.urls import reverse

from console.frame import app_looks, roles, status_strip
from control.audit import tokens
from control.config import requested
from decisions.outcomes import disputes

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
    """What these things are, for screen readers: "engaged", "open"."""


@dataclass(frozen=True)
class Command:
    """One line of the command palette."""

    group: str
    label: str
    hint: str
    icon: str
    href: str


@dataclass(frozen=True)
class PageFrame:
    """What `base.html` shows around a page."""

    env: str
    """Name of the installation."""
    theme: str
    """light, dark, or empty for the system's own setting."""
    keys: bool
    """Whether single-key shortcuts are on."""
    at: datetime
    name: str
    role: str
    initials: str
    items: tuple[NavItem, ...]
    """Navigation: the pages that this person may see."""
    commands: tuple[Command, ...]
    strip: status_strip.Strip | None
    """The status strip; None for someone who is not signed in."""
    ticket: str
    """The ticket this person works on, for the data-access log; empty when they named none."""

    @property
    def clock(self) -> str:
        return f"{self.at:%a} {self.at.day} {self.at:%b, %H:%M:%S} UTC"

    @property
    def other_theme(self) -> str:
        return "light" if self.theme == "dark" else "dark"


# Page and url name, label, icon, key, permission to see it.
_PAGES = (
    ("home", "Home", "home", "h", "decisions.view_decision"),
    ("lookup", "Lookup", "search", "l", "decisions.view_decision"),
    ("switches", "Switches", "switch", "s", "control.view_switchflip"),
    ("approvals", "Approvals", "vote", "v", "approvals.view_request"),
    ("disputes", "Disputes", "flag", "w", "decisions.view_dispute"),
    ("storing", "Storing", "down", "o", "decisions.view_buriedevent"),
    ("people", "People", "people", "p", "control.view_people"),
)

# Label, hint, icon, place on the page of switches, permission to do it.
_ACTIONS = (
    (
        "Engage or clear a kill switch",
        "Asks for a reason and an end",
        "switch",
        "",
        "control.engage_switch",
    ),
    (
        "See which deciders follow",
        "Propagation",
        "live",
        "#propagation",
        "control.view_switchflip",
    ),
)


def page_frame(request: HttpRequest | None) -> PageFrame:
    """Return the frame for this request.

    For someone who is not signed in, and without a request (an error page rendered on its own),
    the frame holds only the theme and the preferences.
    """
    # an error before the authentication middleware leaves a request without a user
    who = getattr(request, "user", None)
    user = who if isinstance(who, User) else None
    cookies = request.COOKIES if request else {}
    theme = cookies.get(THEME_COOKIE, "")
    # read once: navigation counts and strip must not contradict each other
    status = status_strip.read_strip() if user else None
    name = (user.get_full_name() or user.get_username()) if user else ""
    return PageFrame(
        env=settings.SLUICE_ENV_NAME,
        theme=theme if theme in ("light", "dark") else "",
        keys=cookies.get(KEYS_COOKIE) != "off",
        at=datetime.now(UTC),
        name=name,
        role=roles.label(user) if user else "",
        initials="".join(part[0] for part in name.split()[:2]).upper(),
        items=_items(user, status) if user else (),
        commands=_commands(user) if user else (),
        strip=status,
        ticket=app_looks.ticket(request) if user and request else "",
    )


def _may(user: User, permission: str) -> bool:
    return not permission or user.has_perm(permission)


def _items(user: User, status: status_strip.Strip | None) -> tuple[NavItem, ...]:
    waiting = disputes.waiting().open if user.has_perm(disputes.ADJUDICATE_PERMISSION) else 0
    asked = requested.waiting_for(user) if user.has_perm("approvals.view_request") else 0
    counts = {
        "approvals": (asked, "for you"),
        "switches": (len(status.fleet.switches) if status and status.fleet else 0, "engaged"),
        "disputes": (waiting, "open"),
    }
    return tuple(
        NavItem(page, label, icon, reverse(page), key, *counts.get(page, (0, "")))
        for page, label, icon, key, permission in _PAGES
        if _may(user, permission)
    )


def _commands(user: User) -> tuple[Command, ...]:
    """Return what this person can do and reach from here, actions first."""
    found = [
        Command("Do", label, hint, icon, reverse("switches") + anchor)
        for label, hint, icon, anchor, permission in _ACTIONS
        if user.has_perm(permission)
    ]
    for page, label, icon, key, permission in _PAGES:
        if _may(user, permission):
            found.append(Command("Go to", label, f"g {key}", icon, reverse(page)))
    if user.has_perm(tokens.PERMISSION):
        found.append(Command("Go to", "API tokens", "Yours", "key", reverse("tokens")))
    return tuple(found)
