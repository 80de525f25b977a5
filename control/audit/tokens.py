"""API tokens for machines: created and revoked by the person they speak for, shown once, stored as
a digest.
"""

from __future__ import annotations

from datetime import timedelta

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractUser
from django.db.models import QuerySet
from django.utils import timezone
from knox.models import AuthToken
from knox.settings import knox_settings

from control.audit import chain
from control.audit.actors import Actor
from control.errors import Refused

# The right to read over the API is enough to have a token. A token may do what its owner may do.
PERMISSION = "decisions.view_decision"
# Tokens that one person may have at once: enough for several machines, few enough to review.
MOST = 10
# Chosen: every token ends, so that a forgotten one does not work for ever; 90 days suit a person
# who replaces tokens each quarter.
SHORTEST_DAYS, LONGEST_DAYS, USUAL_DAYS = 1, 365, 90


def living(user: AbstractUser) -> QuerySet[AuthToken]:
    """Return a person's tokens that have not ended, the oldest first."""
    mine: QuerySet[AuthToken] = AuthToken.objects.filter(user=user, expiry__gt=timezone.now())
    return mine.order_by("created")


def create(*, by: AbstractUser, days: int, reason: str) -> tuple[AuthToken, str]:
    """Create a token for a person. Return the token and its text, which cannot be read again later.

    Raise Refused when the person has MOST tokens already, `days` is out of range, or the reason is
    empty.
    """
    reason = chain.check_reason(reason)
    if not SHORTEST_DAYS <= days <= LONGEST_DAYS:
        raise Refused(f"A token must last {SHORTEST_DAYS} to {LONGEST_DAYS} days, not {days}.")
    with chain.changing():
        # their row is held while counting, so that two requests cannot both take the last place
        get_user_model().objects.select_for_update(no_key=True).get(pk=by.pk)
        if living(by).count() >= MOST:
            raise Refused(f"You have {MOST} tokens. Revoke one before you make another.")
        made, text = AuthToken.objects.create(
            by, expiry=timedelta(days=days), prefix=knox_settings.TOKEN_PREFIX
        )
        chain.append(
            by=Actor.of(by),
            reason=reason,
            action="token_made",
            subject=f"token {made.token_key}",
            summary=f"made an API token that ends in {days} days",
        )
    return made, text


def revoke(*, by: AbstractUser, token: str) -> bool:
    """End one of a person's tokens at once, by its first characters. Return False when they have no
    such token.
    """
    with chain.changing():
        # by owner as well: the first characters of somebody else's token must not end it
        deleted, _ = AuthToken.objects.filter(user=by, token_key=token).delete()
        # when no token was deleted, nothing happened that the log should record
        if deleted:
            chain.append(
                by=Actor.of(by),
                reason="Revoked by its owner.",
                action="token_revoked",
                subject=f"token {token}",
                summary="revoked an API token",
            )
    return bool(deleted)
