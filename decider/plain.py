"""The short way for the plain check: one whole head in one read, HTTP/1.1, no body, nothing unusual about it.

Nearly all of a gateway's checks look like that. The parser's callbacks are then methods of a list and a dict, so that no
Python runs while llhttp does, which halves the cost of a request. Whatever is not certainly plain is left, untouched, to
`connection`, which reads it again in full: this module may only ever say "not plain", never answer or refuse.
"""

from __future__ import annotations

import httptools

from . import check
from .problem import RefusedError
from .requests import CheckRequest

MOST = 8 * 1024
"""Longest head, in bytes, that may be plain."""
END = b"\r\n\r\n"

_PATH_FROM = len(check.PREFIX)
_LF = 10
_START = check.PREFIX + b"/"
_VERSION = b" HTTP/1.1\r\n"
_UNUSUAL = frozenset(b"host connection transfer-encoding content-length upgrade expect x-sluice-answer".split())


class PlainReader:
    """One per server: between two calls its parser always stands before the first byte of a request."""

    __slots__ = ("_feed", "_fields", "_get_method", "_most_fields", "_parser", "_urls", "on_header", "on_url")

    def __init__(self, most_fields: int) -> None:
        self._most_fields = most_fields
        self._renew()

    def _renew(self) -> None:
        """A parser that has read half a request, or failed, is of no more use."""
        self._urls: list[bytes] = []
        self._fields: check.Fields = {}
        self.on_url = self._urls.append
        self.on_header = self._fields.setdefault
        self._parser = httptools.HttpRequestParser(self)
        self._feed = self._parser.feed_data
        self._get_method = self._parser.get_method

    def read(self, data: bytes) -> CheckRequest | None:
        """The check in `data`, which must begin at a request's first byte, be ASCII and end in END; None when it is not plain."""
        try:
            self._feed(data)
            request = self._plain(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, RefusedError):
            request = None
        if request is None:
            self._renew()
        else:
            self._urls.clear()
            self._fields.clear()
        return request

    def _plain(self, data: bytes) -> CheckRequest | None:
        urls, fields = self._urls, self._fields
        # One line for each field and two more: none came twice, no second request, no body, no trailer.
        if len(urls) != 1 or data.count(_LF) != len(fields) + 2:
            return None
        url, method = urls[0], self._get_method()
        if not data.startswith(_VERSION, len(method) + 1 + len(url)) or method == b"HEAD" or not url.startswith(_START):
            return None
        if not (fields.pop(b"host", None) or fields.pop(b"Host", None)):
            return None
        if len(fields) > 1:
            if (usual := self._usual(fields)) is None:
                return None
            fields = usual
        if (app := fields.get(b"x-sluice-app")) is None:
            return None
        name = app.decode()
        if not (name.isidentifier() and len(name) <= 128) and check.APP(app) is None:  # the first test is the cheaper one
            return None
        path = url[_PATH_FROM:].decode()
        if "?" in path:
            path = path.partition("?")[0]
        if len(path) > check.MAX_PATH or "#" in path:  # the parser lets only visible ASCII through in a URL
            return None
        request = CheckRequest(name, method.decode(), path)
        if len(fields) > 1:
            check.add_optional(request, fields)
        return request

    def _usual(self, fields: check.Fields) -> check.Fields | None:
        """Fields by lower-case name, when none of them asks for more than a plain check."""
        if len(fields) >= self._most_fields:
            return None
        if not b"".join(fields).islower():
            count = len(fields)
            fields = {name.lower(): value for name, value in fields.items()}
            if len(fields) != count:
                return None
        if fields.get(b"content-length") == b"0":
            del fields[b"content-length"]
        return fields if _UNUSUAL.isdisjoint(fields) else None
