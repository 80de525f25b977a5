"""Raw credentials that someone pastes: turned into their digest at once, never given to anything that stores or repeats them."""

from __future__ import annotations

import re

from django.conf import settings

from decider.ids import token_digest

from . import seen_tokens

_SECRET = re.compile(
    r"(?i:bearer|basic|token|apikey)\s+\S+"  # as in a header
    r"|eyJ[\w-]{8,}\.[\w-]+\.[\w-]*"  # a JSON web token (RFC 7519)
    r"|(?:sk|pk|rk|tok|key|ghp|gho|xox[abp])[_-][\w-]{8,}"  # usual prefixes of API keys
    r"|[A-Za-z0-9+/_=-]{40,}"  # longer than any id here, and nothing but what keys are made of
)
_DECISION = re.compile(r"(?:dec_)?[0-9a-fA-F-]{20,}")


class NoKeyError(Exception):
    """The key that credentials are hashed with cannot be read on this host."""


def digest(text: str) -> str:
    """The digest under which deciders record a credential, given with or without its scheme ("Bearer"). Raises NoKeyError."""
    path = settings.SLUICE_KEYS / "token.key"
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as error:
        raise NoKeyError(f"{path.name} cannot be read, so tokens cannot be looked up here.") from error
    scheme, _, credential = text.strip().partition(" ")
    return token_digest(key, credential.strip() or scheme)


def known(text: str) -> str:
    """The digest of a text when it is a credential that a stored decision carried, else empty. Raises NoKeyError."""
    found = digest(text)
    return found if seen_tokens.apps(found, most=1) else ""


def looks_secret(text: str) -> bool:
    """Whether a text has the form of a credential, so that it must not be searched for as anything else."""
    text = text.strip()
    return len(text) > 200 or (_SECRET.fullmatch(text) is not None and _DECISION.fullmatch(text) is None)
