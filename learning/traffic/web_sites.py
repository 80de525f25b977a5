"""Web sites as their clients meet them: pages with assets, redirects, missing pages, forms, a
sign-in, and what each is answered with.

Sites differ widely on purpose. Some answer 404 to what is missing and 401 to a wrong password,
others 200 or a redirect to everything, so that no status by itself tells who attacks.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from random import Random

from learning.traffic import names, services

# Where people sign in, by the habits of common frameworks and products.
SIGN_INS = (
    "/login",
    "/user/login",
    "/account/sign-in",
    "/wp-login.php",
    "/xmlrpc.php",
    "/admin/login.php",
    "/api/session",
    "/auth/token",
    "/members/",
)
# Statuses that sites answer to a wrong password. Here and below, a status that is listed twice is
# twice as common. Chosen to cover many kinds of sites.
WRONG_PASSWORD = (200, 200, 303, 302, 401, 401, 403, 400, 422)
# Statuses of a right password.
RIGHT_PASSWORD = (302, 303, 200, 201)
# Statuses of a missing page.
MISSING = (404, 404, 404, 404, 404, 410, 200, 302, 301, 403)
# Statuses of a form that was sent with nonsense.
BAD_INPUT = (200, 200, 303, 302, 400, 403, 500, 422)
# Statuses of a method that a site does not expect.
ODD_METHOD = (405, 405, 400, 501, 403, 200)
# Words that paths are made of; their meaning does not matter.
WORDS = [word.lower() for word in names.FIRST]
# Endings of guessed files; scanners try the same name with many.
ENDINGS = ("", ".php", ".bak", ".old", ".zip", ".asp", ".jsp", ".sql", ".cgi", "/", ".txt", "~")
# Share of sites whose log holds the size of requests; the usual log formats do not.
SIZES_KNOWN = 0.3
# Bytes, least and most of a form's body.
FORM_BYTES = (40, 4_000)


@dataclass(frozen=True, slots=True)
class WebAsk:
    """One request of a web client with the answer that it will get."""

    method: str
    path: str
    status: int
    bytes_out: int
    worth: float
    """0 to 1, if an honest client sends it."""
    bytes_in: int = 0


class WebSite:
    """One site, drawn from `rng`; clients of the same site meet the same pages and answers."""

    def __init__(self, rng: Random) -> None:
        self.tag = f"{rng.getrandbits(24):06x}"
        # Pages have a number or a name in their path, or all share one script and differ by a
        # query.
        self._style = rng.choice(("numbers", "names", "names", "query"))
        self._section = rng.choice(WORDS)
        self.pages = int(30 * 100 ** rng.random())
        self._assets = int(15 * 20 ** rng.random())
        # Assets of one page, on average: from a plain site to a shop full of pictures.
        self.page_assets = 2.0 * 20 ** rng.random()
        self._sign_in = rng.choice(SIGN_INS)
        self._wrong, self._right = rng.choice(WRONG_PASSWORD), rng.choice(RIGHT_PASSWORD)
        self._missing, self._bad = rng.choice(MISSING), rng.choice(BAD_INPUT)
        self._odd = rng.choice(ODD_METHOD)
        self.sizes_known = rng.random() < SIZES_KNOWN
        # Shares of troubles that honest clients meet; squared, because most sites are in good
        # order.
        self._moved, self._broken = 0.2 * rng.random() ** 2, 0.12 * rng.random() ** 2
        self._broken_assets = 0.3 * rng.random() ** 4
        self._faults = 0.02 * rng.random() ** 3
        # Share of attacks that a firewall before the site answers with 403.
        self._guarded = rng.random() if rng.random() < 0.25 else 0.0
        self._forms = [
            f"/{rng.choice(WORDS)}/{rng.choice(WORDS)}" for _ in range(rng.randint(2, 40))
        ]

    def page(self, rng: Random, number: int | None = None, cached: float = 0.0) -> WebAsk:
        """Return a view of page `number`, by default a popular one. `cached` is the share of pages
        that the client has in its cache.
        """
        if number is None:
            number = int(self.pages * rng.random() ** 3)
        path, draw = self._path(number), rng.random()
        for share, status in (
            (self._faults, 500),
            (self._moved, 301 if number % 2 else 302),
            (self._broken, self._missing),
            (cached, 304),
        ):
            if draw < share:
                return self._ask(rng, "GET", path, status, 0.3)
            draw -= share
        return self._ask(rng, "GET", path, 200, 0.5)

    def asset(self, rng: Random, cached: float) -> WebAsk:
        """Return a request for a picture, script or style of a page. `cached` is as for `page`."""
        number = int(self._assets * rng.random() ** 1.5)
        path = f"/static/{WORDS[number % len(WORDS)]}-{number}.{('js', 'css', 'png')[number % 3]}"
        # The same assets are missing for everybody.
        broken = (zlib.crc32(path.encode()) & 0xFFFF) / 0xFFFF < self._broken_assets
        status = 404 if broken else 304 if rng.random() < cached else 200
        return self._ask(rng, "GET", path, status, 0.35)

    def icon(self, rng: Random, found: float = 0.5) -> WebAsk:
        """Return a request for an icon, which browsers ask for on their own and many sites lack.

        `found` is the probability that the site has it.
        """
        path = rng.choice(("/favicon.ico", "/favicon.png", "/touch-icon.png", "/manifest.json"))
        status = rng.choice((200, 304)) if rng.random() < found else 404
        return self._ask(rng, "GET", path, status, 0.2)

    def head(self, rng: Random, number: int | None = None) -> WebAsk:
        """Return a HEAD request for a page, as link checkers and monitors send."""
        page = self.page(rng, number)
        return WebAsk("HEAD", page.path, page.status, 0, 0.25)

    def feed(self, rng: Random, fresh: float) -> WebAsk:
        """Return a request for the feed, which has news with probability `fresh`."""
        return self._ask(rng, "GET", "/feed", 200 if rng.random() < fresh else 304, 0.25)

    def form(self, rng: Random, number: int = 0) -> WebAsk:
        """Return a request that sends a form which a person filled in."""
        status = self._bad if rng.random() < 0.06 else rng.choice((200, 200, 302, 303))
        return self._ask(rng, "POST", self._forms[number % len(self._forms)], status, 0.7)

    def sign_in(self, rng: Random, right: bool) -> WebAsk:
        """Return a sign-in with a right or a wrong password. The two are answered with bodies of
        different size, and often with the same status.
        """
        status = self._right if right else self._wrong
        name = f"{self.tag} sign-in {right}"
        size = services.answer_bytes(name, status, rng.random())
        return WebAsk("POST", self._sign_in, status, size, 0.8, rng.randint(30, 400))

    def sign_in_page(self, rng: Random) -> WebAsk:
        return self._ask(rng, "GET", self._sign_in, 200, 0.5)

    # ---- what attackers ask for
    # ---------------------------------------------------------------------

    def guess(self, rng: Random) -> WebAsk:
        """Return a request for a path that might exist: most do not."""
        path = f"/{rng.choice(WORDS)}{rng.getrandbits(16):x}{rng.choice(ENDINGS)}"
        if rng.random() < 0.4:
            path = f"/{rng.choice(WORDS)}{path}"
        found = rng.random() < 0.02
        status = rng.choice((200, 403, 401, 301)) if found else self._missing
        return self._attack(rng, "HEAD" if rng.random() < 0.1 else "GET", path, status)

    def inject(self, rng: Random, method: str, target: float) -> WebAsk:
        """Return a request with nonsense in its parameters; `target` in [0, 1) chooses the page or
        form.
        """
        form = self._forms[int(len(self._forms) * target)]
        path = form if method == "POST" else self._path(int(self.pages * target))
        status = self._bad if rng.random() < 0.5 else 200
        return self._attack(rng, method, path, status)

    def odd(self, rng: Random) -> WebAsk:
        """Return a request with a method that no reader of the site uses."""
        method = rng.choice(("OPTIONS", "TRACE", "PROPFIND", "PUT", "DELETE", "TRACK", "DEBUG"))
        return self._attack(rng, method, self._path(rng.randrange(self.pages)), self._odd)

    def _attack(self, rng: Random, method: str, path: str, status: int) -> WebAsk:
        if rng.random() < self._guarded:
            status = 403
        # All missing paths are answered with the same page.
        name = path if status == 200 and status != self._missing else "error"
        size = (
            0 if method == "HEAD" else services.answer_bytes(self.tag + name, status, rng.random())
        )
        body = rng.randint(*FORM_BYTES) if method in ("POST", "PUT") else 0
        return WebAsk(method, path, status, 0 if method == "HEAD" else size, 0.0, body)

    def _ask(self, rng: Random, method: str, path: str, status: int, worth: float) -> WebAsk:
        name = "error" if status >= 400 else path
        size = services.answer_bytes(self.tag + name, status, rng.random())
        # Worth varies by up to 0.2 either way: the value model must not read it off the call.
        worth = min(1.0, max(0.0, worth + 0.4 * (rng.random() - 0.5)))
        return WebAsk(
            method, path, status, size, worth, rng.randint(*FORM_BYTES) if method == "POST" else 0
        )

    def _path(self, number: int) -> str:
        if self._style == "query":
            return "/index.php" if number % 5 else f"/{self._section}.php"
        if self._style == "numbers":
            return f"/{self._section}/{number}"
        return f"/{self._section}/{WORDS[number % len(WORDS)]}-{number}"
