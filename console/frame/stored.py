"""The stored decision that an address names, for pages and REST operations alike.

Both functions raise Django's Http404. The REST framework answers it as a problem (RFC 9457) with
the same sentence, so pages and operations can share them.
"""

from __future__ import annotations

import uuid

from django.http import Http404

from decider.contracts.ids import parse_decision_id
from decisions.models import Decision
from decisions.search import lookup


def raw_id_or_404(decision_id: str) -> bytes:
    """Return the 16 bytes of a decision id.

    Raise Http404 when `decision_id` is not a decision id. The message does not repeat it, because
    someone may have put a credential into the address.
    """
    raw = parse_decision_id(decision_id)
    if raw is None:
        raise Http404("This is not a decision id. A decision id is dec_ and 32 hexadecimal digits.")
    return raw


def decision_or_404(decision_id: str) -> Decision:
    """Return the stored decision with this id.

    Raise Http404 when the text is not a decision id, and when no decision with this id is stored.
    """
    decision = lookup.find(uuid.UUID(bytes=raw_id_or_404(decision_id)))
    if decision is None:
        raise Http404(
            "This decision is not stored: it was not in the sample, or it is too old to be kept."
        )
    return decision
