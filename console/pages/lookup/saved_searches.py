"""Saved searches: a person's own, and those that others share."""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.http import QueryDict
from django.urls import reverse

from console.pages.lookup import asked_filters, page
from decisions.counts import seen_tokens
from decisions.models.decision import SavedSearch
from decisions.search import credentials
from decisions.search.lookup import READINGS, TOKEN

# Searches of one person. Chosen: the palette lists them all, and nobody remembers more.
MOST = 50
# Characters. Chosen: what fits on a line of the palette.
LONGEST_NAME = 60


class SaveError(ValueError):
    """Error for a search that cannot be saved; the text says why."""


class SecretError(SaveError):
    """Error for a search that holds what looks like a credential: it is not kept or repeated."""


@dataclass(frozen=True, slots=True)
class Saved:
    """A saved search as someone sees it."""

    id: int
    name: str
    query: str
    """The part of its address after the question mark."""
    shared: bool
    mine: bool
    owner: str

    @property
    def href(self) -> str:
        return f"{reverse('lookup')}?{self.query}"


def visible_searches(user: User) -> list[Saved]:
    """Return a person's own searches and the shared ones, by name."""
    rows = SavedSearch.objects.filter(Q(owner=user) | Q(shared=True)).select_related("owner")
    return [
        Saved(
            r.id,
            r.name,
            r.query,
            r.shared,
            r.owner_id == user.pk,
            r.owner.get_full_name() or r.owner.get_username(),
        )
        for r in rows
    ]


def save_search(*, by: User, name: str, query: str, shared: bool) -> SavedSearch:
    """Save a search under a name; replace one of the same name.

    Raise SaveError when it cannot be saved, SecretError when it holds what looks like a credential.
    Keep the filters as given, and add no usual filter to a search that has none.
    """
    given = QueryDict(query)
    name, text, insist = " ".join(name.split()), given.get("q", "").strip(), given.get("as", "")
    if not name:
        raise SaveError("A saved search needs a name.")
    if len(name) > LONGEST_NAME:
        raise SaveError(f"The name has {len(name)} characters; the limit is {LONGEST_NAME}.")
    if "\x00" in name:
        raise SaveError("The name holds a control character, which cannot be kept.")
    if not _is_digest(text) and credentials.is_secret(text):
        raise SecretError(
            "This search holds what looks like a credential. Look it up in the box, and save what"
            " that finds."
        )
    if shared and text.startswith(TOKEN):
        raise SaveError("A search for a token cannot be shared: not everyone may see its digest.")
    # kept without a mistyped filter, the search would find what the filter was to leave out
    if strange := asked_filters.unknown_filters(given):
        raise SaveError(strange[0])
    filters = asked_filters.read_filters(given, first_visit=False).filters
    kept = page.lookup_address(
        text, filters, insist=insist if insist in READINGS else ""
    ).partition("?")[2]
    # The column holds 2,000 characters.
    if len(kept) > 2_000:
        raise SaveError("This search has too many filters to be saved.")
    if (
        not SavedSearch.objects.filter(owner=by, name=name).exists()
        and SavedSearch.objects.filter(owner=by).count() >= MOST
    ):
        raise SaveError(f"You have {MOST} saved searches. Delete one first.")
    try:
        # The unique key decides a race. The savepoint keeps the request's transaction usable.
        with transaction.atomic():
            return SavedSearch.objects.update_or_create(
                owner=by, name=name, defaults={"query": kept, "shared": shared}
            )[0]
    except IntegrityError as error:
        raise SaveError(
            "A search with this name was saved at the same moment. Reload the page."
        ) from error


def _is_digest(text: str) -> bool:
    """Tell whether a text is a token's digest, as the search box writes it."""
    return text.startswith(TOKEN) and seen_tokens.is_digest(text.removeprefix(TOKEN))


def remove_search(*, by: User, number: int) -> bool:
    """Delete a person's own saved search. Return False when they have none of this number."""
    return SavedSearch.objects.filter(owner=by, pk=number).delete()[0] > 0
