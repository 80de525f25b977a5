"""Accounts: making a person, deactivating and activating one, and the link by which a person
chooses a password. Nobody but the person ever knows the password.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.contrib.auth.tokens import default_token_generator
from django.core.exceptions import ValidationError
from django.core.validators import EmailValidator
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_decode, urlsafe_base64_encode
from knox.models import AuthToken

from control.audit import chain
from control.audit.actors import Actor
from control.errors import Refused
from control.people.grants import as_actor, check_not_oneself, lock, name_of, subject_of

# Characters of an e-mail address, as wide as Django's column of the user name.
LONGEST_EMAIL = 150
# Characters of a first or last name, as wide as the columns.
LONGEST_NAME = 150
# Bytes of the number of a person in a link, before it is decoded. Chosen: a 64-bit number has 20
# digits, which are 27 characters.
_LONGEST_NUMBER = 32


@dataclass(frozen=True, slots=True)
class Invitation:
    """The parts of a link by which one person, once, chooses a password."""

    person: str
    """The person's number, encoded."""
    token: str


def make(*, by: Actor | User, email: str, first: str, last: str, reason: str) -> User:
    """Make a person without a role and without a password, and return them. They see nothing until
    somebody gives them a role, and sign in once they have chosen a password (`invite`).

    Raise Refused for what is no e-mail address, an address that somebody has, and a missing name.
    """
    email, first, last = check_email(email), first.strip(), last.strip()
    if not first or not last or max(len(first), len(last)) > LONGEST_NAME:
        raise Refused(f"Give a first and a last name of at most {LONGEST_NAME} characters each.")
    with chain.changing():
        if User.objects.filter(username=email).exists():
            raise Refused(f"Somebody signs in as {email} already.")
        made = User(username=email, email=email, first_name=first, last_name=last)
        made.set_unusable_password()
        made.save(force_insert=True)
        _append(by, made, "person.make", "made the person", reason)
    return made


def deactivate(*, by: Actor | User, person: User, reason: str) -> None:
    """End a person's sessions and API tokens for good, and let them sign in no more. Their roles
    and grants stay, for the access review. Raise Refused for one's own account and a deactivated
    person.
    """
    check_not_oneself(by, person)
    with chain.changing():
        locked = lock(person)
        if not locked.is_active:
            raise Refused(f"{name_of(locked)} is deactivated already.")
        locked.is_active = False
        # without it, sessions of before would go on after an activation
        locked.set_unusable_password()
        locked.save(update_fields=["is_active", "password"])
        AuthToken.objects.filter(user=locked).delete()
        _append(by, locked, "person.deactivate", "deactivated", reason)


def activate(*, by: Actor | User, person: User, reason: str) -> None:
    """Let a deactivated person sign in again, once they have chosen a new password. Raise Refused
    for one's own account and an active person.
    """
    check_not_oneself(by, person)
    with chain.changing():
        locked = lock(person)
        if locked.is_active:
            raise Refused(f"{name_of(locked)} is active.")
        locked.is_active = True
        locked.save(update_fields=["is_active"])
        _append(by, locked, "person.activate", "activated", reason)


def invite(*, by: Actor | User, person: User, reason: str) -> Invitation:
    """Return a link with which a person chooses a password. It works once, for three days
    (PASSWORD_RESET_TIMEOUT), and not after they have signed in otherwise.

    Raise Refused for one's own account, which would change a password without asking for it, and
    for a deactivated person.
    """
    check_not_oneself(by, person)
    with chain.changing():
        locked = lock(person)
        if not locked.is_active:
            raise Refused(f"{name_of(locked)} is deactivated. Activate them first.")
        _append(by, locked, "person.invite", "made a sign-in link for", reason)
    number = urlsafe_base64_encode(force_bytes(locked.pk))
    return Invitation(number, default_token_generator.make_token(locked))


def invited(invitation: Invitation) -> User | None:
    """Return whom a link is for; None when it was used, is too old, or was never made."""
    if len(invitation.person) > _LONGEST_NUMBER:
        return None
    try:
        number = int(urlsafe_base64_decode(invitation.person))
    except ValueError:
        return None
    # 63 bits, as wide as the column
    if not 0 < number < 1 << 63:
        return None
    found = User.objects.filter(pk=number, is_active=True).first()
    fits = found is not None and default_token_generator.check_token(found, invitation.token)
    return found if fits else None


def choose_password(invitation: Invitation, password: str) -> User:
    """Set the password that a person chose through their link, and return the person. All their
    sessions end. Raise Refused for a link that does not work and a password that is too weak.
    """
    with chain.changing():
        found = invited(invitation)
        locked = lock(found) if found is not None else None
        # asked again under the lock: of two tabs, one uses the link
        if locked is None or not default_token_generator.check_token(locked, invitation.token):
            raise Refused("This link does not work. Ask your administrator for a new one.")
        try:
            validate_password(password, locked)
        except ValidationError as error:
            raise Refused(" ".join(error.messages)) from error
        locked.set_password(password)
        locked.save(update_fields=["password"])
        reason = "Chosen by its owner with a sign-in link."
        _append(locked, locked, "person.password", "chose a password for", reason)
    return locked


def find(login: str) -> User | None:
    """Return the person who signs in as `login`."""
    return User.objects.filter(username=login.strip().lower()).first()


def check_email(email: str) -> str:
    """Return an e-mail address as it is kept, in small letters. Raise Refused for anything else."""
    email = email.strip().lower()
    # the length first: the pattern runs on short texts only
    if len(email) > LONGEST_EMAIL:
        raise Refused(f"An email address here has at most {LONGEST_EMAIL} characters.")
    try:
        EmailValidator()(email)
    except ValidationError as error:
        raise Refused("That is no email address.") from error
    return email


def _append(by: Actor | User, person: User, action: str, said: str, reason: str) -> None:
    chain.append(
        by=as_actor(by),
        reason=reason,
        action=action,
        subject=subject_of(person),
        summary=f"{said} {name_of(person)}",
    )
