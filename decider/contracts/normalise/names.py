"""From a path to the name of its endpoint: what may be stored, counted and shown.

Clients write anything into paths: numbers of orders, but also addresses, cards and sentences. Only
segments that look like words of an API stand in a name. Placeholders in braces stand for all
others, so that nothing personal is kept. A single word may still be somebody's name; how many words
are told apart is bounded where names are kept (`engine.endpoint_names`).
"""

from __future__ import annotations

import re

# Numbers, UUIDs, hexadecimal of 12 digits or more, a prefix with "_" (ord_1a2b), and any word of 20
# characters or more with a digit. Each alternative takes linear time: clients choose the text.
IDENTIFIER = re.compile(
    r"\d+|[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|(?=[^/]*\d)[0-9a-fA-F]{12,}|[A-Za-z]{1,8}_[0-9A-Za-z]{4,}|(?=[^/]*\d)[0-9A-Za-z_-]{20,}"
)
# Characters. Bounded, as the name is stored with each kept decision; a longer one is a client's
# invention.
LONGEST = 200
# What stands for an identifier, an e-mail address, and any other text.
ID, EMAIL, TEXT = "{id}", "{email}", "{text}"
# Name that stands for all paths that cannot be read.
UNREADABLE = "/{unreadable}"
# A segment of words: `orders`, `orders:batchGet`, `wp-login.php`, `.well-known`, `$metadata`.
_WORDS = re.compile(r"[._~$]?+[A-Za-z0-9]++(?:[-_.:~][A-Za-z0-9]++)*+")
_SEPARATOR = re.compile(r"[-_.:~]")
# Most words, characters and digits of such a segment, and letters of a word. Chosen: endpoints have
# shorter names (`payment-intents:cancel`, `oauth2`, `sha256`); titles, sentences, dates, cards,
# phone numbers and keys are longer or have more digits.
MOST_WORDS, MOST_CHARACTERS, MOST_DIGITS, MOST_LETTERS = 4, 48, 4, 32
# Runs of digits and letters from which on a word is a key: `oauth2` has two, `p2p` three.
_KEY_RUNS = 4
_RUN = re.compile(r"\d++|[A-Za-z]++")
# Letters from which on a word of small and capital letters may be a key. Chosen: shorter ones do
# not tell.
_KEY_LETTERS = 16


def of_segment(segment: str) -> str:
    """Return what may be kept of a path's segment: itself when it looks like a word, else a
    placeholder in braces. `segment`: as `path_of` writes it. Takes linear time.
    """
    if not segment:
        return segment
    if "@" in segment:
        return EMAIL
    if IDENTIFIER.fullmatch(segment):
        return ID
    digits = sum(map(str.isdigit, segment))
    if digits and not any(map(str.isalpha, segment)):
        return ID  # a phone number, a card, a date
    if len(segment) > MOST_CHARACTERS or not _WORDS.fullmatch(segment):
        return TEXT
    if digits > MOST_DIGITS:
        return ID
    words = _SEPARATOR.split(segment.lstrip("._~$"))
    if len(words) > MOST_WORDS or any(map(_is_key, words)):
        return TEXT
    return segment


def _is_key(word: str) -> bool:
    """Return whether a word is too long or too mixed for one that people chose."""
    if len(_RUN.findall(word)) >= _KEY_RUNS:
        return True
    if len(word) < _KEY_LETTERS:
        return False
    capitals = sum(map(str.isupper, word))
    # a name of many words in CamelCase has one capital in five letters; a key half of them
    return len(word) > MOST_LETTERS or len(word) < 3 * capitals < 2 * len(word)


def name_of(path: str) -> str:
    """Return the name of a path: `/v2/users/a@b.example/orders/123` ->
    `/v2/users/{email}/orders/{id}`.

    It has LONGEST characters at most; UNREADABLE stands for what is no path.
    """
    return join([of_segment(part) for part in path.split("/")]) if path else UNREADABLE


def join(parts: list[str]) -> str:
    """Return the name with these segments. What is too much of it is left out, whole segments at a
    time.
    """
    name = "/".join(parts)
    if len(name) > LONGEST:
        most = LONGEST - len(TEXT) - 1
        name = f"{name[: most + 1].rpartition('/')[0]}/{TEXT}"
    return name
