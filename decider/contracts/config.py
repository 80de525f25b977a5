"""The config document: one typed, versioned, signed value that tells every decider how to decide.

`control` publishes it. Each decider verifies it, compiles its rules (`policy.rules_of`,
`engine.lists`, `engine.routing`) and swaps them in between two requests.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, Protocol, TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Meta, Struct

# Visible ASCII only: names stand in HTTP headers and log lines, where a space or control character
# could forge a field.
Name = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[!-~]+$")]
Share = Annotated[float, Meta(ge=0, le=1)]
# Above 0, because no refusal is certain to be right: with 0, ML could refuse nothing.
PositiveShare = Annotated[float, Meta(gt=0, le=1)]
# 1e12 is above anything real and keeps products of two such numbers finite and exact enough.
Positive = Annotated[float, Meta(gt=0, le=1e12)]
FiveShares = tuple[Share, Share, Share, Share, Share]
NotNegative = Annotated[float, Meta(ge=0, le=1e12)]
# Unix seconds. 7e9 is the year 2191; NaN and infinity are no moments.
Moment = Annotated[float, Meta(ge=0, le=7e9)]
SwitchName = Literal["all_ml", "observe_only"]
# The switches by name. `engaged` says whether one is in force.
ALL_ML: Final = "all_ml"
OBSERVE_ONLY: Final = "observe_only"


# Versions in an epoch. An epoch begins when the console's database was restored: it no longer knows
# which versions it had given out, and the first of a new epoch is above them all. Chosen: more than
# anyone changes, and twenty bits of epochs still fit what JSON readers count exactly.
EPOCH: Final = 1 << 32
# Newest document format that this code reads; it reads every older one. See `ADDED`.
FORMAT: Final = 5


class Addition(NamedTuple):
    """A field that a format added to the document. Deciders that read only older formats behave as
    if the field had its default.
    """

    format: int
    path: tuple[str, ...]
    """Names from the document down; "*" stands for each item of a list."""


# Every field that the document did not have in format 1. A document is written in the oldest format
# that has all the fields it uses, so older deciders accept it until someone uses a new field. They
# refuse a document with a field that they do not know: to ignore a rule would be worse.
ADDED: Final = (
    Addition(2, ("model", "feature_schema")),
    Addition(3, ("tiers", "*", "headroom")),
    Addition(3, ("tiers", "*", "headroom_to")),
    Addition(3, ("tiers", "*", "error_budget")),
    Addition(3, ("services", "*", "endpoints", "*", "sign_in")),
    Addition(4, ("services", "*", "endpoints", "*", "costs")),
    Addition(3, ("unknown_apps",)),
    Addition(3, ("lists", "*", "network")),
)
# Services that a document, a heartbeat and a report between deciders may have. Chosen: four times
# those of a large platform; a report of that many is still small.
MOST_SERVICES: Final = 1_024


class Growth(NamedTuple):
    """A list that a format allowed to be longer. Older deciders refuse one with more than `before`
    items.
    """

    format: int
    path: str
    before: int


GROWN: Final = (Growth(5, "services", 64),)

# Error budgets by tier, in `Tier` order, where the document names none. Enterprise customers are
# promised fewer than 1 wrong refusal in 10,000 requests; 1 limits nothing.
ERROR_BUDGETS: Final = (1.0, 1.0, 1.0, 0.0001)


class ConfigError(Exception):
    """A config document that may not be used: bad signature, bad form, or a format that this code
    does not read.
    """


class Switch(Struct, frozen=True, forbid_unknown_fields=True):
    """A kill switch that is engaged."""

    name: SwitchName
    until: float | None = None
    """Unix time at which it clears by itself on every decider; None: until someone clears it."""


class ModelRef(Struct, frozen=True, forbid_unknown_fields=True):
    """A model artifact by its digest."""

    name: Name
    version: Annotated[int, Meta(ge=1)]
    digest: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    feature_schema: Annotated[str, Meta(max_length=64)] = ""
    """Feature schema that the model was made for; empty: the document's."""


class TierPolicy(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an app of a tier is owed, and what a wrong decision about it costs. Utilities are in
    units of one ordinary request.
    """

    rate: Positive
    """Requests a second by which its bucket refills."""
    burst: Positive
    """Requests that its full bucket holds, without the headroom."""
    quota_per_day: Positive
    """Requests it may make in a UTC day; a hard limit."""
    weight: Positive
    """Weight of its tenants in the fair share."""
    friction: Positive
    """Utility lost by one false block."""
    harm: Positive
    """Utility lost by one abusive request admitted."""
    error_budget_per_hour: NotNegative
    """Expected false throttles an hour. Deciders that read only formats 1 and 2 keep to it. Newer
    ones use it only to replay decisions of those.
    """
    error_budget: PositiveShare | None = None
    """Expected false throttles that an app may suffer from ML, as a share of its requests, in any
    hour and any day; 1 limits nothing. None: the value of its tier in ERROR_BUDGETS.
    """
    # chosen: the standard tier's value in `defaults`
    rank_from: Share = 0.15
    """Cheap score (`policy.cheap_score`) from which on triage asks the model."""
    headroom: Share = 1.0
    """Headroom in which ML may still admit once the burst is used, as a share of the burst."""
    headroom_to: Literal["all", "proven"] = "all"
    """Which apps have the headroom: all, or those that gave proof of honesty (`policy.is_proven`).
    """


class EndpointPolicy(Struct, frozen=True, forbid_unknown_fields=True):
    """An endpoint that differs from its service's default."""

    method: Annotated[str, Meta(pattern=r"^[A-Z]{3,7}$")]
    template: Annotated[str, Meta(pattern=r"^/", max_length=256)]
    cost: Positive = 1.0
    """Cost units of a request at its own service."""
    batch: Annotated[str, Meta(max_length=120)] = ""
    """How to ask for many at once, for example "POST /v2/orders:batchGet"; empty when there is no
    batch form.
    """
    sign_in: bool | None = None
    """Whether its requests carry credentials to be checked; None: the words of its path decide
    (`routing.kind_of`).
    """
    costs: dict[Name, Positive] = {}
    """Cost units of a request at every service that it loads, by name, where these are several.
    Without its own service in it, `cost` holds there.
    """


class Service(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A protected service. The gateway names it, else the longest matching path prefix finds it
    (`routing.Router`).
    """

    name: Name
    prefixes: list[Annotated[str, Meta(pattern=r"^/", max_length=256)]]
    capacity: Positive
    """Cost units a second it serves before it slows down."""
    latency_ms: Positive
    """Its usual latency, milliseconds."""
    # chosen: queues grow steeply above it, and it leaves room for a burst between two ticks
    target: Share = 0.85
    """Utilisation to which the price holds the service while it is short of room."""
    endpoints: list[EndpointPolicy] = []


class TenantPolicy(Struct, frozen=True, forbid_unknown_fields=True):
    """A tenant that differs from its tier's default."""

    tenant: Name
    weight: Positive = 1.0


class Override(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An operator override. Until it expires, it forces an action on an app or tenant, or
    multiplies the rate and burst of their plan.
    """

    id: Name
    kind: Literal["app", "tenant"]
    subject: Name
    until: float
    action: Annotated[int, Meta(ge=0, le=4)] | None = None
    multiplier: Positive = 1.0


class ListEntry(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A guard rule about an app, a tenant or a source."""

    verdict: Literal["allow", "block", "compliance"]
    kind: Literal["app", "tenant", "source"]
    subject: Name
    """Id of an app or tenant; of a source an IPv4 address, or a network such as "192.0.2.0/24" or
    "2001:db8::/32". A source that is no address finds nobody.
    """
    until: float | None = None
    network: bool = False
    """Whether the subject is a network, which deciders that read only formats 1 and 2 would look
    for as an address.
    """


class Sampling(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The sampling rates: how likely each kind of decision is to be kept. Each is a probability;
    under load, the budget scales all of them down.
    """

    # chosen: fifty deciders' samples are 20,000 rows a second, half of what ingest stores
    # (docs/figures.md)
    budget_per_s: Positive = 400.0
    """Kept decisions a second; beyond it, the probabilities fall."""
    # admits are many and alike, so few of them suffice for counts
    admit: Share = 0.02
    refuse: Share = 0.5
    """Defers, batches and sheds of tiers below enterprise."""
    # all of them: these are the decisions that get disputed
    block: Share = 1.0
    enterprise_refuse: Share = 1.0


class ActionWeights(Struct, frozen=True, forbid_unknown_fields=True):
    """Weights of each action, in `Action` order (admit, defer, batch, shed, block): how much value
    it keeps, how much harm it leaks, how much it loads the service and how much it hurts a
    legitimate client. They are shares of what ADMIT (keep, leak, load) or BLOCK (friction) does.
    """

    # chosen: a deferred or batched request mostly comes back, so it keeps most of its value, leaks
    # about half of the harm and loads the service less; a shed or blocked one keeps nothing
    keep: FiveShares = (1.0, 0.75, 0.8, 0.0, 0.0)
    leak: FiveShares = (1.0, 0.45, 0.5, 0.2, 0.0)
    load: FiveShares = (1.0, 0.4, 0.5, 0.0, 0.0)
    friction: FiveShares = (0.0, 0.12, 0.1, 0.3, 1.0)


class UnknownApps(Struct, frozen=True, forbid_unknown_fields=True):
    """What unknown apps may do: those that have no profile and are not in the table of known apps
    (docs/adr/0025). Anyone can make up app ids. If each id had a plan of its own, a client could
    have as many plans as it invents ids.
    """

    treatment: Literal["plan", "share", "refuse"] = "plan"
    """plan: each app has the plan of the unknown tier. share: the unknown apps of one address share
    one bucket of that plan, and all unknown apps together share the bucket below. refuse: an app is
    refused until its profile arrives.
    """
    # chosen: room for the first requests of new customers on a small decider
    rate: Positive = 100.0
    """With `share`: requests a second of all unknown apps together, on each decider."""
    burst: Positive = 1_000.0
    """With `share`: requests that all unknown apps together may send at once."""


class Config(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole config document. `version` only grows: a decider applies a document only when its
    version is higher than that of the one in force.
    """

    version: Annotated[int, Meta(ge=1)]
    feature_schema: Annotated[str, Meta(max_length=64)]
    """Feature schema of the document. Deciders that read only format 1 compare it with their own.
    Newer deciders apply any document, because only its model depends on the schema.
    """
    issued_at: float
    tiers: Annotated[list[TierPolicy], Meta(min_length=4, max_length=4)]
    """In `Tier` order."""
    services: Annotated[list[Service], Meta(min_length=1, max_length=MOST_SERVICES)]
    """The one with the prefix "/" also takes requests that match no prefix, else the first one."""
    switches: list[Switch] = []
    model: ModelRef | None = None
    """Live model; without one the fallback limiter decides."""
    tenants: list[TenantPolicy] = []
    overrides: list[Override] = []
    lists: list[ListEntry] = []
    sampling: Sampling = Sampling()
    actions: ActionWeights = ActionWeights()
    # chosen: far above a healthy batch's scoring time, so it trips on a model that is too slow
    # rather than on noise
    ml_time_limit_ms: Positive = 5.0
    """Time that scoring one batch may take. After three longer batches in a row, ML counts as late
    for a second.
    """
    # the lowest tier: an app whose profile is not known gets no more than a free one
    unknown_tier: Annotated[int, Meta(ge=0, le=3)] = 0
    unknown_apps: UnknownApps = UnknownApps()
    # rather too many than too few: the own shares of all nodes together must not exceed the quota
    nodes: Annotated[int, Meta(ge=1, le=4096)] = 8
    """Deciders that may run at once in all regions; it bounds each node's own share of a quota."""
    format: Annotated[int, Meta(ge=1)] = 1
    """Format that the document was read in; `encode` sets it. Documents in format 1 lack it."""


def error_budget_of(config: Config, tier: int) -> float:
    """Return the error budget of an app of `tier`: a share of its requests, 1 where it has none."""
    own = config.tiers[tier].error_budget
    return ERROR_BUDGETS[tier] if own is None else own


class _Format(Struct):
    """The part of a document that is read first: this version may not know its other fields."""

    format: int = 1


class Signed(Struct, array_like=True, frozen=True):
    """A config document in msgpack with its Ed25519 signature."""

    payload: bytes
    signature: bytes
    key_id: str
    """First 16 hex digits of the raw public key."""


def key_id(key: Ed25519PublicKey) -> str:
    """Return the id of a public key: the first 16 hex digits of its raw bytes."""
    return key.public_bytes_raw().hex()[:16]


def read_public_keys(path: Path) -> dict[str, Ed25519PublicKey]:
    """Return the public keys in a file by id. Each line holds one: while keys are rotated there are
    two. Raise OSError or ValueError.
    """
    lines = path.read_text(encoding="ascii").split()
    found = [Ed25519PublicKey.from_public_bytes(bytes.fromhex(line)) for line in lines]
    return {key_id(key): key for key in found}


def version_text(version: int) -> str:
    """Return a version as people read it: 9, and 1.3 for the third of the first epoch."""
    epoch, number = divmod(version, EPOCH)
    return f"{epoch}.{number}" if epoch else str(number)


def next_epoch(version: int) -> int:
    """Return the first version of the epoch after that of `version`."""
    return (version // EPOCH + 1) * EPOCH + 1


def sign(config: Config, key: Ed25519PrivateKey) -> bytes:
    """Return the document as bytes to publish: msgpack of `Signed`."""
    payload = encode(config)
    return msgspec.msgpack.encode(Signed(payload, key.sign(payload), key_id(key.public_key())))


# Errors that decoding raises: for a wrong form or type, text that is not UTF-8, endless nesting.
MALFORMED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def verify(data: bytes, keys: dict[str, Ed25519PublicKey]) -> Config:
    """Check a published document's signature, format and form, and return it.

    `keys`: public keys by key id. Raises ConfigError that says what failed.
    """
    try:
        signed = msgspec.msgpack.decode(data, type=Signed)
    except MALFORMED as error:
        raise ConfigError(f"not a signed config document: {error}") from error
    if (key := keys.get(signed.key_id)) is None:
        raise ConfigError(f"signed by an unknown key {signed.key_id[:16]!r}")
    try:
        # before the payload is decoded: only bytes from a known signer reach the decoder
        key.verify(signed.signature, signed.payload)
    except InvalidSignature as error:
        raise ConfigError("the signature does not match") from error
    return decode(signed.payload)


def needed_format(config: Config, above: int = 1) -> tuple[int, str]:
    """Return the oldest format, at least `above`, that can say what a document says, and what needs
    this format ("model.feature_schema", say; "" when it is `above`).
    """
    used = [
        (growth.format, f"{growth.path} (more than {growth.before})")
        for growth in GROWN
        if growth.format > above and len(getattr(config, growth.path)) > growth.before
    ]
    used += [
        (addition.format, ".".join(addition.path))
        for addition in ADDED
        if addition.format > above
        for holder in _holders(config, addition.path[:-1])
        if getattr(holder, addition.path[-1]) != _default(holder.__class__, addition.path[-1])
    ]
    return max(used, default=(above, ""))


def encode(config: Config) -> bytes:
    """Return the document as msgpack, in the oldest format that has all the fields it uses."""
    form, _ = needed_format(config)
    plain = msgspec.to_builtins(msgspec.structs.replace(config, format=form))
    if form == 1:
        del plain["format"]
    for addition in ADDED:
        if addition.format > form:
            for holder in _holders(plain, addition.path[:-1]):
                del holder[addition.path[-1]]
    return msgspec.msgpack.encode(plain)


def _holders(document: Any, path: tuple[str, ...]) -> list[Any]:
    """Return all parts at a path of a document, which may be a struct or plain dictionaries."""
    found = [document]
    for name in path:
        if name == "*":
            found = [item for items in found for item in items]
        else:
            found = [one[name] if isinstance(one, dict) else getattr(one, name) for one in found]
        found = [one for one in found if one is not None]  # an optional part that is not there
    return found


# cached: looking a field up takes far longer than decoding a document, and a push waits for it
@cache
def _default(struct: type[Struct], name: str) -> object:
    field = next(f for f in msgspec.structs.fields(struct) if f.name == name)
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def decode(payload: bytes) -> Config:
    """Return the document in an unsigned msgpack payload. Raises ConfigError that says what is
    wrong.
    """
    try:
        form = msgspec.msgpack.decode(payload, type=_Format).format
        if form > FORMAT:
            raise ConfigError(
                f"the config document is written in format {form}; this version of Sluice reads"
                f" formats 1 to {FORMAT}"
            )
        config = msgspec.msgpack.decode(payload, type=Config)
    except MALFORMED as error:
        raise ConfigError(f"malformed config document: {error}") from error
    check(config)
    return config


def check(config: Config) -> None:
    """Check what types cannot say. Raises ConfigError that names the part that is wrong."""
    needed, field = needed_format(config, above=config.format)
    if needed > config.format:
        raise ConfigError(
            f"the document holds {field}, which its format does not have: the document says format"
            f" {config.format}, and this needs format {needed}"
        )
    for name, services in Counter(s.name for s in config.services).items():
        if services > 1:
            raise ConfigError(f"two services have the name {name}")
    # msgpack carries NaN and infinity; a rule whose end is NaN would silently never apply
    for what, time in _times(config):
        if time is not None and not math.isfinite(time):
            raise ConfigError(f"{what} is not a finite number")


def _times(config: Config) -> Iterator[tuple[str, float | None]]:
    """Yield name and value (unix seconds, None for never) of each time in the document."""
    yield "issued_at", config.issued_at
    yield from ends(config)


def ends(config: Config) -> Iterator[tuple[str, float | None]]:
    """Yield name and end (unix seconds, None for never) of each rule that may end by itself."""
    yield from ((f"the end (until) of override {o.id}", o.until) for o in config.overrides)
    yield from ((f"the end (until) of the switch {s.name}", s.until) for s in config.switches)
    for entry in config.lists:
        yield f"the end (until) of {entry.verdict} {entry.kind} {entry.subject}", entry.until


class _Ending(Protocol):
    """A switch, an override or a list entry: a rule that may end by itself."""

    @property
    def until(self) -> float | None: ...


_Rule = TypeVar("_Rule", bound=_Ending)


def in_force(rules: Iterable[_Rule], now: float) -> list[_Rule]:
    """Return the rules that have not ended by themselves at `now` (unix seconds).

    A rule ends at its `until`, not after it, on every decider and page alike.
    """
    return [rule for rule in rules if rule.until is None or now < rule.until]


def engaged(config: Config, name: SwitchName, now: float) -> bool:
    """Return whether the kill switch `name` is in force at `now` (unix seconds)."""
    return now < engaged_until(config, name)


def engaged_until(config: Config, name: SwitchName) -> float:
    """Return the unix time at which the kill switch `name` clears by itself.

    0 when it is clear, infinity when it stays until someone clears it. A switch may stand in the
    document more than once; the latest end counts.
    """
    ends = [math.inf if s.until is None else s.until for s in config.switches if s.name == name]
    return max(ends, default=0.0)
