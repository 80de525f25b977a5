"""`manage.py person`: makes people, gives and takes roles, from a shell of the installation."""

from __future__ import annotations

from argparse import ArgumentParser

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError
from django.urls import reverse

from control.audit.actors import ROLE_LABELS, Actor
from control.errors import ControlError
from control.people import accounts, grants, review


class Command(BaseCommand):
    help = (
        "Makes and lists people and gives them roles; each change is in the audit log. It makes an"
        " installation's first person: person make ada@example.org --first Ada --last Byron --role"
        ' administrator --reason "First person". The person chooses a password by the link that'
        " is printed."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        verbs.add_parser("list", help="show everyone with their roles")
        make = _verb(verbs.add_parser("make", help="make a person, and print their sign-in link"))
        make.add_argument("--first", required=True)
        make.add_argument("--last", required=True)
        make.add_argument("--role", action="append", default=[], choices=list(ROLE_LABELS))
        _verb(verbs.add_parser("deactivate", help="end someone's sessions and tokens; no sign-in"))
        _verb(verbs.add_parser("activate", help="let someone sign in again"))
        link = _verb(verbs.add_parser("link", help="print a link to choose a new password"))
        for parser_with_link in (make, link):
            parser_with_link.add_argument(
                "--console",
                default=f"http://localhost:{settings.SLUICE_PORTS['console']}",
                help="address of the console that the link begins with",
            )
        for name, said in (("give", "give someone a role"), ("take", "take a role from someone")):
            verb = _verb(verbs.add_parser(name, help=said))
            verb.add_argument("role", choices=list(ROLE_LABELS))

    def handle(self, **options: str) -> None:
        """Do what the verb says. Raise CommandError with a sentence when it cannot be done."""
        verb = options["verb"]
        try:
            if verb == "list":
                self._list()
            elif verb == "make":
                self._make(options)
            else:
                self._change(verb, _person(options["email"]), options)
        except ControlError as error:
            raise CommandError(str(error)) from error

    def _list(self) -> None:
        for one in review.everyone():
            held = ", ".join(role.label for role in one.roles) or "no role"
            more = "" if one.active else ", deactivated"
            more += ", superuser: may do everything" if one.everything else ""
            seen = f"{one.last_sign_in:%Y-%m-%d %H:%M} UTC" if one.last_sign_in else "never"
            self.stdout.write(f"{one.login}  {one.name}: {held}{more}; last sign-in {seen}")

    def _make(self, options: dict[str, str]) -> None:
        by, reason = Actor.at_shell(), options["reason"]
        made = accounts.make(
            by=by,
            email=options["email"],
            first=options["first"],
            last=options["last"],
            reason=reason,
        )
        for role in options["role"]:
            grants.give(by=by, person=made, role=role, reason=reason)
        self.stdout.write(f"{made.get_full_name()} signs in as {made.get_username()}.")
        self._link(made, options)

    def _change(self, verb: str, person: User, options: dict[str, str]) -> None:
        by, reason = Actor.at_shell(), options["reason"]
        if verb == "link":
            self._link(person, options)
            return
        if verb == "give":
            grants.give(by=by, person=person, role=options["role"], reason=reason)
        elif verb == "take":
            grants.take(by=by, person=person, role=options["role"], reason=reason)
        elif verb == "deactivate":
            accounts.deactivate(by=by, person=person, reason=reason)
        else:
            accounts.activate(by=by, person=person, reason=reason)
        self.stdout.write("Done, and in the audit log.")

    def _link(self, person: User, options: dict[str, str]) -> None:
        invitation = accounts.invite(by=Actor.at_shell(), person=person, reason=options["reason"])
        address = reverse("invitation", args=[invitation.person, invitation.token])
        self.stdout.write(
            "They choose a password here; the link works once, for three days:\n"
            f"{options['console'].rstrip('/')}{address}"
        )


def _verb(parser: ArgumentParser) -> ArgumentParser:
    """Add what every change of one person needs."""
    parser.add_argument("email")
    parser.add_argument("--reason", required=True, help="kept in the audit log")
    return parser


def _person(email: str) -> User:
    found = accounts.find(email)
    if found is None:
        raise CommandError(f"Nobody signs in as {email}. `manage.py person list` shows everyone.")
    return found
