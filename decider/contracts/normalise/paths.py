"""One reading of request paths, for checks, bodies, logs, routes and endpoint templates alike.

A client may write one path in many ways: with dot segments, double slashes, percent-encoding, path
parameters or a slash at its end. Gateways and services take these for one path, so they must cost
the same and count for the same service. This reading follows Envoy with `normalize_path`,
`merge_slashes` and encoded slashes refused (docs/paths.md), and goes further where only the service
tells two spellings apart:

- the query and the fragment are left out, and so are scheme and host of an absolute address;
- "\\" is a slash, as in browsers and Envoy;
- parameters of a segment (";x=1") are dropped, as Java's servers do;
- percent-encoded characters that may stand in a segment are decoded, and all others are encoded,
  with hexadecimal digits in capitals;
- dot segments are removed (RFC 3986, section 5.2.4), then empty segments and a slash at the end.

The case of letters is kept. What has no reading is no path: a text without a slash at its start,
one that is too long, control characters, and an encoded slash, backslash or NUL, which servers read
in different ways.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

# Characters of a path with its query left out. Chosen: far above real routes, and it bounds the
# work of reading, routing and hashing, which every request pays.
MOST_CHARACTERS: Final = 1024
# Paths remembered. Chosen: more than a busy decider has endpoints without ids; 3 MB, and 35 MB at
# most, when clients make them as long and odd as they can.
REMEMBERED: Final = 16_384

# Characters that stand for themselves in a segment (`pchar` of RFC 3986), and the slash. ";" is not
# among them: it begins the parameters, so one that belongs to the segment stays encoded.
_THEMSELVES = "!$&'()*+,=:@-._~/"
# Such a path is read already. A segment that begins with a dot may be a dot segment.
_READ = re.compile(r"(?:/[\w!$&'()*+,=:@~-][\w!$&'()*+,=:@.~-]*+)++", re.ASCII).fullmatch
_ABSOLUTE = re.compile(r"(?:http|ws)s?://[^/?#\\]*+", re.IGNORECASE | re.ASCII)
_QUERY = re.compile(r"[?#]")
_PARAMETERS = re.compile(r";[^/]*+")
# An encoded slash, backslash or NUL means something else to each server that decodes it.
_NO_PATH = re.compile(r"[\x00-\x1f\x7f]|%(?:2f|5c|00)", re.IGNORECASE).search


def path_of(text: str) -> str:
    """Return the one spelling of a request's path, and "" for a text that is none.

    What it returns is ASCII and begins with "/"; reading it again changes nothing.
    """
    if len(text) > MOST_CHARACTERS:
        # a long query costs a path nothing, and no long text is remembered
        text = _QUERY.split(text, 1)[0]
    return _remembered(text) if len(text) <= MOST_CHARACTERS else ""


@lru_cache(maxsize=REMEMBERED)
def _remembered(text: str) -> str:
    return text if _READ(text) else _read(text)


def _read(text: str) -> str:
    path = _QUERY.split(_ABSOLUTE.sub("", text, count=1), 1)[0].replace("\\", "/")
    if path[:1] != "/" or _NO_PATH(path):
        return ""
    # a surrogate that stands alone is no character, and stands in no prefix
    decoded = unquote_to_bytes(_PARAMETERS.sub("", path).encode("utf-8", "replace"))
    kept: list[bytes] = []
    for segment in decoded[1:].split(b"/"):
        if segment == b"..":
            del kept[-1:]
        elif segment != b".":
            # an empty segment too, which ".." takes back as any other
            kept.append(segment)
    read = "/" + quote_from_bytes(b"/".join(filter(None, kept)), _THEMSELVES)
    return read if len(read) <= MOST_CHARACTERS else ""
