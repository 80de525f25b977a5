"""The check whether someone holds a permission, which every "who may" check of the rooms uses."""

from __future__ import annotations


def holds(user: object, permission: str) -> bool:
    """Return whether `user` holds a permission ("app.codename").

    Django's users, signed in or not, have `has_perm`. Anything else, such as None, holds nothing,
    so a caller without a person is refused instead of failing.
    """
    has_perm = getattr(user, "has_perm", None)
    return bool(has_perm is not None and has_perm(permission))
