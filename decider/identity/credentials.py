"""The reader of credentials: from what a client sent to the app it stands for.

Verifying a signature takes as long as ten decisions. So good tokens are remembered, by a digest,
for as long as they are good. What a flood of bad tokens may cost is bounded three times: a bad
token that comes again is known; an address that keeps sending bad ones is refused unread; and all
signatures together have a fixed room, beyond which a request is decided by its address. Tokens that
are remembered go on through all of this.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from decider.identity import api_keys, jwt
from decider.identity.errors import CredentialError, Why
from decider.identity.material import Material

# Tokens remembered. Chosen: 15 MB, and several tokens for each app that is active at once.
MOST_GOOD = 65_536
# Bad tokens remembered. Chosen: a client that repeats one is common, and others cost their room.
MOST_BAD = 4_096
# Signatures verified in a second, and at once. Chosen: 148 us for Ed25519, the dearest, so about a
# seventh of the time, and less than half of what a gateway waits for an answer (15 ms).
ROOM_PER_S, ROOM = 1_000.0, 50.0
# Characters that a signature's room includes, and those beyond it that take as long as another one.
# Measured: PyJWT looks at each, 44 ns, so a bad token of 7 kB takes 425 us.
SHORT, AS_LONG = 500, 3_300
# Bad tokens of one address in WINDOW_S seconds, beyond which it is refused unread. Chosen: far
# above a client whose token has expired, far below what tells an attacker anything.
BAD_OF_SOURCE = 20
# Seconds after which bad tokens and addresses are forgotten. Chosen: short, since many people may
# share an address, and what is not valid yet may be soon.
WINDOW_S = 10.0
# Addresses whose bad tokens are counted. Chosen: as many as good tokens.
MOST_SOURCES = 65_536
# Bytes of a digest: two tokens with the same one will not be found (128 bits).
_DIGEST_BYTES = 16
# Begins every JWT: a JSON object in base64url.
_JWT_START = "eyJ"
# In front of the address in the name of an app that has none.
SOURCE_APP = "source:"


class _Good(NamedTuple):
    app: str
    until: float


class Credentials:
    """The reader of one decider. `wall` returns unix seconds, `clock` ones that never go back."""

    def __init__(
        self,
        material: Material,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.material = material
        self.refused: Counter[Why] = Counter()
        """Refusals since the start, by what was wrong."""
        self.unread = 0
        """Requests decided by their address because there was no room to verify their token."""
        self._wall, self._clock = wall, clock
        self._good: dict[bytes, _Good] = {}
        self._bad: dict[bytes, Why] = {}
        self._bad_of: Counter[str] = Counter()
        self._forget_at = 0.0
        self._room, self._room_at = ROOM, clock()

    @property
    def header(self) -> str:
        """The header that holds the credential."""
        return self.material.settings.header

    def replace(self, material: Material) -> None:
        """Read with other files from now on. What a key that is gone had signed counts no more."""
        before = self.material
        if not all(material.still_trusts(key.thumb, before.rules) for key in before.keys):
            self._good.clear()
        self._forget()
        self.material = material

    def known(self, credential: str) -> str | None:
        """Return the app of a token that was verified and is still good, or of an API key; None for
        what `read` must look at.
        """
        if self._is_token(credential):
            good = self._good.get(_digest(credential))
            return good.app if good is not None and self._wall() < good.until else None
        try:
            return self._app_of_key(credential)
        except CredentialError:
            return None

    def read(self, credential: str, source: str) -> str:
        """Return the app that a credential stands for. Raise CredentialError.

        `source`: where the request came from, "" when nobody knows.
        """
        try:
            if not credential:
                return self._without(source)
            if self._is_token(credential):
                return self._token(credential, source)
            return self._app_of_key(credential)
        except CredentialError as error:
            self.refused[error.why] += 1
            raise

    def _without(self, source: str) -> str:
        if self.material.settings.without == "refuse":
            raise CredentialError(Why.MISSING)
        return SOURCE_APP + source

    def _is_token(self, credential: str) -> bool:
        material = self.material
        return material.rules is not None and (
            credential.startswith(_JWT_START) or not (material.secrets or material.table)
        )

    def _app_of_key(self, credential: str) -> str:
        material = self.material
        if material.secrets and (not material.table or credential.count(".") > 1):
            return api_keys.app_of_key(credential, material.secrets)
        return api_keys.app_in_table(credential, material.table)

    def _token(self, credential: str, source: str) -> str:
        if (app := self.known(credential)) is not None:
            return app
        self._pass_time()
        digest = _digest(credential)
        if (why := self._bad.get(digest)) is None:
            # without an address, all who have none would share one count
            if source and self._bad_of[source] >= BAD_OF_SOURCE:
                raise CredentialError(Why.TOO_MANY)
            room = 1.0 + max(0, len(credential) - SHORT) / AS_LONG
            if self._room < room:
                self.unread += 1
                return SOURCE_APP + source
            self._room -= room
            try:
                return self._verify(credential, digest)
            except CredentialError as error:
                why = error.why
        self._note_bad(digest, why, source)
        raise CredentialError(why)

    def _verify(self, credential: str, digest: bytes) -> str:
        material = self.material
        assert material.rules is not None
        found = jwt.verify(credential, material.keys, material.rules, self._wall())
        if len(self._good) >= MOST_GOOD:
            # the one verified first: it is the first to expire, more often than not
            del self._good[next(iter(self._good))]
        self._good[digest] = _Good(found.app, found.until)
        return found.app

    def _note_bad(self, digest: bytes, why: Why, source: str) -> None:
        if len(self._bad) < MOST_BAD:
            self._bad[digest] = why
        if source and (source in self._bad_of or len(self._bad_of) < MOST_SOURCES):
            self._bad_of[source] += 1

    def _pass_time(self) -> None:
        now = self._clock()
        self._room = min(ROOM, self._room + (now - self._room_at) * ROOM_PER_S)
        self._room_at = now
        if now >= self._forget_at:
            self._forget()
            self._forget_at = now + WINDOW_S

    def _forget(self) -> None:
        self._bad.clear()
        self._bad_of.clear()


def _digest(credential: str) -> bytes:
    return hashlib.blake2b(credential.encode(), digest_size=_DIGEST_BYTES).digest()
