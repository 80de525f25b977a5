"""Columns of the feature vector, as constants that compiled code can read: `RATE_1S` is the column
of the feature `rate_1s`.

They are derived from the table of features, so a new feature needs no line here. A test checks that
`features_of.features_of` writes each column once.
"""

from __future__ import annotations

from decider.contracts.features import INDEX


def __getattr__(name: str) -> int:
    """Return the column of the feature that is called `name` in lower case.

    Raise AttributeError when there is none; the compiler then names the line that asked.
    """
    # the import system and tools ask for private names, which are never features
    if not name.isupper() or (column := INDEX.get(name.lower())) is None:
        raise AttributeError(f"there is no feature {name.lower()!r} in the table of features")
    return column
