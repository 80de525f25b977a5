"""What each kind of web client asks for and when: plans that go on without end or stop by
themselves.

A plan yields pairs: seconds since the request before, and the request. Honest and hostile plans
overlap on purpose in pace, in statuses and in the share of writes; no single one tells them apart.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from random import Random

from learning.traffic.web_sites import WebAsk, WebSite
from learning.traffic.world import AppKind

# Least and most requests of one scan. Real scans reach tens of thousands, but after some thousands
# nothing new shows.
SCAN_REQUESTS = (100.0, 4_000.0)
Plan = Iterator[tuple[float, WebAsk]]
PlanOf = Callable[[WebSite, Random, float], Plan]


class WebKind(IntEnum):
    """How a client of a web site really behaves. SCANNER and all after it attack."""

    VISITOR = 0
    ICON_SEEKER = 1
    """A device that asks for icons by all names it knows."""
    HEAVY_VISITOR = 2
    CRAWLER = 3
    FEED_READER = 4
    MONITOR = 5
    SCRIPT = 6
    """Polls an API of the site without a credential."""
    SIGNER = 7
    """Signs in, sometimes after wrong passwords."""
    OFFICE = 8
    """An address behind which many visitors sit: an office or a CDN."""
    POSTER = 9
    INTEGRATION = 10
    """Mostly posts to one endpoint, as webhooks do."""
    SYNC = 11
    """Reads and writes with methods that browsers do not use, as WebDAV does."""
    SCANNER = 12
    SLOW_SCANNER = 13
    PATH_GUESSER = 14
    SCRAPER = 15
    QUIET_SCRAPER = 16
    PASSWORD_GUESSER = 17

    @property
    def hostile(self) -> bool:
        return self >= WebKind.SCANNER


@dataclass(frozen=True, slots=True)
class WebHabit:
    """How often a kind of client occurs, and how it reacts to a refusal."""

    plan: PlanOf
    near: AppKind
    """The most similar kind of app; rows of this client are stored as that kind."""
    share: float
    """Share among the honest clients or among the attacks; shares need not add up to 1."""
    stays: bool = False
    """Its client is there from the beginning or soon after, and stays."""
    insists: float = 0.0
    """Share of these clients that try a refused request again at once."""
    crew: float = 0.0
    """Share of the attacks that come from several addresses, each with a part of the pace."""
    members: tuple[float, float] = (2.0, 8.0)
    """Least and most addresses of such an attack."""


def draw_log(rng: Random, least: float, most: float) -> float:
    """Draw a number from `least` to `most`, evenly by its logarithm."""
    return least * math.exp(rng.random() * math.log(most / least))


def _gaps(rng: Random) -> Callable[[float], float]:
    """Return a function that draws gaps of a given mean: even, random or in clumps."""
    style, jitter = rng.random(), rng.uniform(0.0, 0.4)
    if style < 0.4:
        return lambda mean: mean * (1.0 + jitter * (2.0 * rng.random() - 1.0))
    if style < 0.75:
        return lambda mean: rng.expovariate(1.0 / mean)
    # In clumps: one gap in some is long and the others are short.
    clump = rng.randint(3, 25)
    return lambda mean: (
        mean * clump * rng.random() * 2.0 if rng.random() < 1.0 / clump else 0.02 * mean
    )


# ---- honest
# ---------------------------------------------------------------------------------


def _load_page(site: WebSite, rng: Random, think: float, cached: float, busy: float) -> Plan:
    """Plan one page after `think` seconds, and then its assets, `busy` times as many as usual."""
    yield think, site.page(rng, cached=0.5 * cached)
    # Browsers ask for several at a time, the rest as they read the page.
    gap = draw_log(rng, 0.005, 0.25)
    for _ in range(min(150, int(rng.expovariate(1.0 / (busy * site.page_assets))))):
        yield rng.expovariate(1.0 / gap), site.asset(rng, cached)


def visit(site: WebSite, rng: Random, pace: float, pages: int = 0, busy: float = 1.0) -> Plan:
    """Plan visits with breaks; each page with its assets, then time to read."""
    think, cached = draw_log(rng, 2.0, 60.0) / pace, rng.random() ** 2
    while True:
        for number in range(pages or 1 + int(rng.expovariate(0.25))):
            wait = rng.expovariate(1.0 / think) if number else 0.1
            yield from _load_page(site, rng, wait, cached, busy)
            if number == 0 and rng.random() < 0.5:
                yield 0.2, site.icon(rng)
            # After the first page most assets are in the cache.
            cached = max(cached, 0.6)
        if rng.random() < 0.6:
            return
        yield rng.expovariate(1.0 / 180.0), site.page(rng, cached=cached)


def ask_icons(site: WebSite, rng: Random, pace: float) -> Plan:
    """Plan a device that asks for a page's icons by all names it knows, and sometimes comes back
    later. The site lacks most of them.
    """
    found = 0.6 * rng.random() ** 2
    while True:
        if rng.random() < 0.4:
            yield 0.1, site.page(rng)
        for _ in range(rng.randint(2, 10)):
            yield draw_log(rng, 0.02, 3.0), site.icon(rng, found)
        if rng.random() < 0.7:
            return
        yield rng.expovariate(1.0 / 240.0), site.icon(rng, found)


def visit_heavily(site: WebSite, rng: Random, pace: float) -> Plan:
    """Plan the visit of somebody who opens many full pages, hundreds of requests a minute."""
    faster, busy = draw_log(rng, 3.0, 15.0), draw_log(rng, 1.0, 4.0)
    return visit(site, rng, pace * faster, rng.randint(4, 40), busy)


def crawl(site: WebSite, rng: Random, pace: float) -> Plan:
    """Plan a search engine's crawl at a steady pace: all pages, and some that have been removed."""
    gap, gaps = draw_log(rng, 0.4, 25.0) / pace, _gaps(rng)
    stale, checks, looks = 0.4 * rng.random() ** 3, rng.random() ** 4, 0.3 * rng.random() ** 2
    number = rng.randrange(site.pages)
    while True:
        number = (number + 1) % site.pages if rng.random() < 0.5 else rng.randrange(site.pages)
        if rng.random() < stale:
            # The index still remembers pages that have been removed.
            old = site.guess(rng)
            ask = WebAsk("GET", old.path, old.status, old.bytes_out, 0.15)
        elif rng.random() < checks:
            ask = site.head(rng, number)
        elif rng.random() < looks:
            ask = site.asset(rng, 0.3)
        else:
            ask = site.page(rng, number, cached=0.2)
        yield gaps(gap), ask


def read_feed(site: WebSite, rng: Random, pace: float) -> Plan:
    """Plan a feed reader's regular requests, most of which find nothing new."""
    gap, fresh = draw_log(rng, 8.0, 400.0) / pace, rng.random() ** 2
    while True:
        yield gap * rng.uniform(0.95, 1.05), site.feed(rng, fresh)
        if rng.random() < fresh:
            yield 0.3, site.page(rng)


def watch(site: WebSite, rng: Random, pace: float) -> Plan:
    """Plan a monitor's health checks. Some watch what is long gone or needs a sign-in."""
    gap, many = draw_log(rng, 1.0, 60.0) / pace, rng.randint(1, 4)
    first, status = rng.randrange(site.pages), rng.choice((200, 200, 200, 200, 204, 404, 401, 500))
    method = rng.choice(("GET", "HEAD", "HEAD"))
    while True:
        for k in range(many):
            page = site.page(rng, (first + k) % site.pages)
            found = page.status if status == 200 else status
            yield gap * rng.uniform(0.97, 1.03), WebAsk(method, page.path, found, 0, 0.3)


def poll(site: WebSite, rng: Random, pace: float) -> Plan:
    """Plan a script that polls an API without a credential; some of the items do not exist."""
    gap, gaps = draw_log(rng, 0.3, 30.0) / pace, _gaps(rng)
    # Some scripts go on asking for items that have been deleted.
    vain = rng.random() ** 3
    asks, first = draw_log(rng, 1.0, 400.0), rng.randrange(10**6)
    # A browser asks before each call to another site whether it may (CORS).
    asks_before = rng.random() < 0.15
    while True:
        path = f"/api/items/{first + int(asks * rng.random())}"
        if asks_before:
            yield gaps(gap), WebAsk("OPTIONS", path, 204, 0, 0.2)
        missing = rng.random() < vain
        size = 90 if missing else int(200 + 3_000 * rng.random())
        yield (
            0.05 if asks_before else gaps(gap),
            WebAsk("GET", path, 404 if missing else 200, size, 0.25 if missing else 0.45),
        )


def sign_in(site: WebSite, rng: Random, pace: float) -> Plan:
    """Plan a person's sign-in after some wrong passwords, and the visit that follows."""
    yield 0.1, site.sign_in_page(rng)
    for _ in range(int(rng.random() ** 3 * 8)):
        yield draw_log(rng, 2.0, 30.0) / pace, site.sign_in(rng, right=False)
        if rng.random() < 0.4:
            yield 0.3, site.sign_in_page(rng)
    if rng.random() < 0.9:
        yield draw_log(rng, 2.0, 30.0) / pace, site.sign_in(rng, right=True)
    yield from visit(site, rng, pace)


def share_address(site: WebSite, rng: Random, pace: float) -> Plan:
    """Plan the visits of many people behind one address, several of them at the same time."""
    people = int(draw_log(rng, 2.0, 15.0) * pace) + 1
    apart = draw_log(rng, 1.0, 40.0)

    def come_and_go() -> Plan:
        while True:
            pause = rng.expovariate(1.0 / (apart * people))
            plan = sign_in if rng.random() < 0.15 else visit
            for wait, ask in plan(site, rng, 1.0):
                yield pause + wait, ask
                pause = 0.0

    return _together([come_and_go() for _ in range(people)])


def _together(plans: list[Plan]) -> Plan:
    """Merge plans that run side by side into one."""
    coming: list[tuple[float, int, WebAsk]] = []
    for k, plan in enumerate(plans):
        wait, ask = next(plan)
        heapq.heappush(coming, (wait, k, ask))
    now = 0.0
    while coming:
        at, k, ask = heapq.heappop(coming)
        yield at - now, ask
        now = at
        if (more := next(plans[k], None)) is not None:
            heapq.heappush(coming, (now + more[0], k, more[1]))


def post_forms(site: WebSite, rng: Random, pace: float) -> Plan:
    """Plan somebody who writes: comments, a chat, an editor that saves as it goes."""
    gap, form, reads = draw_log(rng, 1.5, 60.0) / pace, rng.randrange(40), rng.random() * 0.7
    while True:
        ask = site.page(rng) if rng.random() < reads else site.form(rng, form)
        yield rng.expovariate(1.0 / gap), ask


def integrate(site: WebSite, rng: Random, pace: float) -> Plan:
    """Plan another system's posts to one endpoint. Some are set up wrongly and fail for good."""
    gap, gaps = draw_log(rng, 0.4, 90.0) / pace, _gaps(rng)
    path = rng.choice(("/hooks/in", "/wp-cron.php", "/api/events", "/rpc", "/admin/ajax"))
    status = rng.choice((200, 200, 201, 202, 204, 303, 401, 404))
    fails, reads = 0.1 * rng.random() ** 2, 0.1 * rng.random()
    body = draw_log(rng, 60, 20_000)
    usual = 0 if status == 204 else int(draw_log(rng, 1, 3_000))
    while True:
        if rng.random() < reads:
            yield gaps(gap), WebAsk("GET", path, 200, 300, 0.4)
        found = rng.choice((400, 500, 422)) if rng.random() < fails else status
        yield gaps(gap), WebAsk("POST", path, found, usual, 0.7, int(body * rng.uniform(0.7, 1.3)))


def synchronise(site: WebSite, rng: Random, pace: float) -> Plan:
    """Plan a client that keeps a folder in step: listings, then reads and writes in a row."""
    rest, folder = draw_log(rng, 5.0, 120.0) / pace, rng.randrange(10**4)
    while True:
        yield rng.expovariate(1.0 / rest), WebAsk("PROPFIND", f"/dav/{folder}/", 207, 2_500, 0.5)
        for _ in range(int(rng.expovariate(0.2))):
            method, status = rng.choice((("GET", 200), ("GET", 200), ("PUT", 201), ("HEAD", 404)))
            size = int(draw_log(rng, 100, 50_000))
            path = f"/dav/{folder}/{rng.randrange(300)}.txt"
            sent = size if method == "PUT" else 0
            yield (
                0.05 + 0.3 * rng.random(),
                WebAsk(method, path, status, size if method == "GET" else 0, 0.6, sent),
            )


# ---- hostile
# ---------------------------------------------------------------------------------


def scan(site: WebSite, rng: Random, pace: float) -> Plan:
    """Plan a scanner that looks for holes at 1.5 to 40 requests a second."""
    return _scan(site, rng, draw_log(rng, 1.5, 40.0) * pace)


def scan_slowly(site: WebSite, rng: Random, pace: float) -> Plan:
    """Plan a scanner that hides by its pace: one request in 30 s to two in a second."""
    return _scan(site, rng, draw_log(rng, 0.03, 2.0) * pace)


def _scan(site: WebSite, rng: Random, rate: float) -> Plan:
    """Plan a scan of `rate` requests a second. It goes from test to test: guessed paths, nonsense
    in forms and parameters, odd methods, and plain reading.
    """
    works: list[Callable[[float], WebAsk]] = [
        lambda _: site.guess(rng),
        lambda target: site.inject(rng, "GET", target),
        lambda target: site.inject(rng, "POST", target),
        lambda _: site.odd(rng),
        lambda _: site.page(rng, rng.randrange(site.pages)),
    ]
    # Cubed, because many scanners mostly do one of these. Odd methods and reading are rarely that
    # one.
    weights = [rng.random() ** 3 + 0.01 for _ in works]
    weights[3], weights[4] = 0.2 * weights[3], 0.4 * weights[4]
    # Thorough ones try all they know on one form before they go to the next.
    gaps, stretch, thorough = _gaps(rng), draw_log(rng, 3.0, 500.0), rng.random() < 0.6
    left = int(draw_log(rng, *SCAN_REQUESTS))
    while left > 0:
        work, target = rng.choices(works, weights)[0], rng.random()
        many = 1 + int(rng.expovariate(1.0 / stretch))
        left -= many
        for _ in range(many):
            yield gaps(1.0 / rate), work(target if thorough else rng.random() ** 2)


def guess_paths(site: WebSite, rng: Random, pace: float) -> Plan:
    """Plan a list of well-known paths that is tried from its beginning to its end."""
    rate, gaps = draw_log(rng, 0.3, 30.0) * pace, _gaps(rng)
    for _ in range(int(draw_log(rng, 20, 20_000))):
        yield gaps(1.0 / rate), site.guess(rng)


def scrape(site: WebSite, rng: Random, pace: float) -> Plan:
    """Plan a copy of a site's content, page after page without the assets."""
    return _scrape(site, rng, draw_log(rng, 1.0, 12.0) * pace, 0.25 * rng.random())


def scrape_quietly(site: WebSite, rng: Random, pace: float) -> Plan:
    """Plan a copy of content that only asks for what is there, hardly faster than a crawler."""
    return _scrape(site, rng, draw_log(rng, 0.3, 3.0) * pace, 0.0)


def _scrape(site: WebSite, rng: Random, rate: float, missing: float) -> Plan:
    gaps, number = _gaps(rng), rng.randrange(site.pages)
    while True:
        number = (number + 1) % site.pages
        ask = site.guess(rng) if rng.random() < missing else site.page(rng, number)
        if not missing and ask.status != 200:
            continue
        yield gaps(1.0 / rate), ask


def guess_passwords(site: WebSite, rng: Random, pace: float) -> Plan:
    """Plan tries of passwords on one sign-in; few are right. A single attacker tries often. Each
    address of a crew tries only once in seconds to minutes.
    """
    gap, gaps = draw_log(rng, 0.15, 6.0) / pace, _gaps(rng)
    right, looks = 0.05 * rng.random() ** 2, rng.random() if rng.random() < 0.3 else 0.0
    while True:
        if rng.random() < looks:
            yield 0.2, site.sign_in_page(rng)
        yield gaps(gap), site.sign_in(rng, rng.random() < right)


# Shares are judgement: people are most clients of a site, and each kind of attack occurs.
HABITS = {
    WebKind.VISITOR: WebHabit(visit, AppKind.BURSTY, 0.36),
    WebKind.ICON_SEEKER: WebHabit(ask_icons, AppKind.BURSTY, 0.06),
    WebKind.HEAVY_VISITOR: WebHabit(visit_heavily, AppKind.BURSTY, 0.10),
    WebKind.CRAWLER: WebHabit(crawl, AppKind.POLLER, 0.16, stays=True),
    WebKind.FEED_READER: WebHabit(read_feed, AppKind.POLLER, 0.04, stays=True),
    WebKind.MONITOR: WebHabit(watch, AppKind.POLLER, 0.05, stays=True, insists=0.3),
    WebKind.SCRIPT: WebHabit(poll, AppKind.STEADY, 0.07, stays=True, insists=0.5),
    WebKind.SIGNER: WebHabit(sign_in, AppKind.STEADY, 0.07),
    WebKind.OFFICE: WebHabit(share_address, AppKind.STEADY, 0.03, stays=True),
    WebKind.POSTER: WebHabit(post_forms, AppKind.STEADY, 0.04),
    WebKind.INTEGRATION: WebHabit(integrate, AppKind.STORM, 0.05, stays=True, insists=0.5),
    WebKind.SYNC: WebHabit(synchronise, AppKind.STEADY, 0.02, stays=True, insists=0.2),
    WebKind.SCANNER: WebHabit(scan, AppKind.SCRAPER, 0.36, insists=0.1, crew=0.1),
    WebKind.SLOW_SCANNER: WebHabit(scan_slowly, AppKind.DRIPPER, 0.12, crew=0.4),
    WebKind.PATH_GUESSER: WebHabit(guess_paths, AppKind.SCRAPER, 0.18, crew=0.3),
    WebKind.SCRAPER: WebHabit(scrape, AppKind.SCRAPER, 0.10, crew=0.3),
    WebKind.QUIET_SCRAPER: WebHabit(scrape_quietly, AppKind.DRIPPER, 0.05, crew=0.3),
    WebKind.PASSWORD_GUESSER: WebHabit(
        guess_passwords, AppKind.STUFFER, 0.22, crew=0.6, members=(3.0, 60.0)
    ),
}
