"""Reviews: changes that needed a second person and were made while nobody could be asked."""

from __future__ import annotations

from collections.abc import Collection

from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.utils import timezone

from control.approvals.models import Review
from control.audit import chain
from control.audit.actors import Actor
from control.errors import NotAllowed, Refused


def open_review(*, by: Actor, payload: str, digest: str, summary: str, reason: str) -> Review:
    """Keep a change for a second person to look at, in the transaction that takes it in."""
    return Review.objects.create(
        payload=payload,
        digest=digest,
        summary=summary,
        reason=reason,
        by=by.name,
        by_login=by.login,
        made_at=timezone.now(),
    )


def waiting() -> QuerySet[Review]:
    """Return the reviews that nobody has closed, oldest first."""
    return Review.objects.filter(closed_at=None).order_by("pk")


def check_may_close(user: User, review: Review, permissions: Collection[str]) -> None:
    """Raise NotAllowed for a person who may not decide changes of this kind, Refused for the one
    who made this change and for a review that is closed.
    """
    if not user.is_active or not any(user.has_perm(one) for one in permissions):
        raise NotAllowed(f"{user} may not close this review.")
    if review.closed_at is not None:
        raise Refused(f"{review.closed_by} closed this review already.")
    if user.get_username() == review.by_login:
        raise Refused("You made this change, so someone else must look at it.")


def close(number: int, *, by: User, reason: str, permissions: Collection[str]) -> Review:
    """Write down what a second person found, and close the review. Raise NotAllowed, Refused."""
    reason = chain.check_reason(reason)
    with chain.changing():
        row = Review.objects.select_for_update(of=("self",)).filter(pk=number).first()
        if row is None:
            raise Refused(f"There is no review {number}.")
        check_may_close(by, row, permissions)
        row.closed_by, row.closed_at, row.closed_reason = by, timezone.now(), reason
        row.save(update_fields=["closed_by", "closed_at", "closed_reason"])
        chain.append(
            by=Actor.of(by),
            reason=reason,
            action="review.close",
            subject=f"review {row.pk}",
            # as wide as the column
            summary=f"looked at what {row.by} did while nobody could be asked: {row.summary}"[:500],
            after={"review": row.pk, "digest": row.digest},
        )
    return row
