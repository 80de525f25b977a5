"""Raw credentials that someone pastes: turned into their digest at once, never given to anything
that stores or repeats them.
"""

from __future__ import annotations

import re
from pathlib import Path

from django.conf import settings

from decider.contracts.ids import parse_decision_id, token_digest
from decisions.counts import seen_tokens

# Characters. A decider takes no longer credential, and no id and no name is nearly as long. The
# length is checked before any pattern runs.
LONGEST = 8_192
_SHAPES = re.compile(
    r"(?i:bearer)\s+\S+"  # as in a header
    r"|(?i:basic|token|apikey)\s+(?=\S*\d|\S{20})\S+"  # the same, and not "Token service"
    r"|eyJ[\w-]{8,}\.[\w-]+\.[\w-]*"  # a JSON web token (RFC 7519)
    r"|(?:gh[oprsu]|github_pat|npm|hf|shp(?:at|ca|pa|ss)|whsec|dop_v1|sluice)_(?=\S*\d)[\w+/=]{8,}"
    r"|(?:xox[a-z]|xapp|glpat|pypi)-(?=\S*\d)[\w-]{8,}"
    r"|(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{12,}"  # of AWS
    r"|AIza[\w-]{30,}|ya29\.[\w.-]{10,}|SG\.[\w-]{10,}\.[\w-]{10,}"
    r"|-----BEGIN .*"  # a private key
    r"|[A-Za-z][\w+.-]*://[^\s/@:]*:[^\s/@]+@\S*",  # an address with a password
    re.DOTALL,
)
# API keys; what follows must hold a run as random as a key's, which "key-accounts" does not.
_KEY = re.compile(r"(?:sk|pk|rk|tok|key)[_-]([\w-]+)")
_KEY_RUN = 8  # characters of such a run; the shortest keys in use are about that long
_PAIR = re.compile(r"([\w.@+-]{1,64}):([^\s:]{12,})")
# These words stand before the colon of an id, not of a secret ("request:..."); without them, ids
# that people paste from logs would be taken for passwords.
_NAMED_IDS = frozenset(
    {
        "id",
        "rid",
        "req",
        "request",
        "request-id",
        "request_id",
        "x-request-id",
        "trace",
        "trace-id",
        "trace_id",
        "span",
        "decision",
        "root",
        "urn",
    }
)
# Only characters that keys are made of, and longer than most ids. Chosen: 40 characters are 30
# random bytes in base64, more than any id needs.
_LONG = re.compile(r"[A-Za-z0-9+/_=-]{40,}")
_ID = re.compile(
    r"dec_.*"
    r"|[0-9a-fA-F-]{20,36}"  # a decision id without its prefix, or a UUID, perhaps cut short
    r"|[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"  # W3C Trace Context, traceparent
    r"|(?:Root=)?1-[0-9a-f]{8}-[0-9a-f]{24}"  # AWS X-Ray
)
# A run of letters and digits of this length is no word and no number. Chosen: 16 characters of
# base64 are 96 random bits, about the shortest that an API key may be.
_RUN = 16
_RUNS = re.compile(r"[A-Za-z0-9]+")
_DIGIT, _SMALL, _CAPITAL, _LETTER = map(re.compile, ("[0-9]", "[a-z]", "[A-Z]", "[A-Za-z]"))


class NoKeyError(Exception):
    """This host cannot read the key that credentials are hashed with."""


def digests(text: str) -> tuple[str, ...]:
    """Return the digests under which deciders record a credential, given with or without its scheme
    ("Bearer"): by the token key, then by those before it, which stored decisions may have used.
    Raise NoKeyError.
    """
    scheme, _, credential = text.strip().partition(" ")
    return tuple(
        token_digest(key, credential.strip() or scheme) for key in _keys(settings.SLUICE_KEYS)
    )


def _keys(folder: Path) -> list[bytes]:
    """Return the keys of `token.key`, and of `token.old` where it exists, one key per line (as
    `control.deciders.keys.load_token_keys`). Raise NoKeyError.
    """
    found = []
    for path in (folder / "token.key", folder / "token.old"):
        try:
            found += [bytes.fromhex(line) for line in path.read_text(encoding="ascii").split()]
        except (OSError, ValueError) as error:
            if path.name == "token.old" and isinstance(error, FileNotFoundError):
                continue
            raise NoKeyError(
                f"{path.name} cannot be read or is not hexadecimal, so tokens cannot be looked up."
            ) from error
    return found


def known(text: str) -> str:
    """Return the digest of a text that is a credential of a stored decision, else "". Raise
    NoKeyError.
    """
    if not (text.isascii() and text.isprintable()):
        return ""  # no decider takes such a credential
    return next((digest for digest in digests(text) if seen_tokens.apps(digest, most=1)), "")


def is_secret(text: str, *, insisted: bool = False) -> bool:
    """Return whether a text must not be searched for, kept or repeated: a stored decision carried
    it, or it has the form of a credential.

    `insisted`: someone said that it is an id or a name, so its length alone says nothing.
    """
    try:
        if known(text):
            return True
    except NoKeyError:
        pass  # without the key, only the form of the text can be judged
    return has_shape(text) if insisted else looks_secret(text)


def looks_secret(text: str) -> bool:
    """Return whether a text has the form of a credential, so that it must not be searched for as
    anything else.
    """
    text = text.strip()
    # ids and names have at most 200 characters, but a pasted key or header may have more
    if len(text) > 200 or has_shape(text):
        return True
    return _LONG.fullmatch(text) is not None and _ID.fullmatch(text) is None and _opaque(text)


def has_shape(text: str) -> bool:
    """Return whether a text has a form that only credentials have: a known prefix, a scheme, or
    "name:secret". A text longer than `LONGEST` is kept from every search as if it had.
    """
    text = text.strip()
    if len(text) > LONGEST or _SHAPES.fullmatch(text):
        return True
    key = _KEY.fullmatch(text)
    if key and any(_DIGIT.search(run) for run in _runs(key[1], _KEY_RUN)):
        return True
    pair = _PAIR.fullmatch(text)
    if (
        pair is None
        or pair[1].lower() in _NAMED_IDS
        or _ID.fullmatch(pair[2])
        or parse_decision_id(pair[2])
    ):
        return False
    return _opaque(pair[2])


def _opaque(text: str) -> bool:
    """Return whether a text looks random: letters and digits mixed in one long run, or digits and
    both cases mixed in a long text.
    """
    mixed = all(kind.search(text) for kind in (_SMALL, _CAPITAL, _DIGIT))
    return (mixed and len(text) >= _RUN) or any(
        _DIGIT.search(run) and _LETTER.search(run) for run in _runs(text, _RUN)
    )


def _runs(text: str, least: int) -> list[str]:
    """Return the runs of letters and digits in a text that have at least so many characters."""
    return [run for run in _RUNS.findall(text) if len(run) >= least]
