"""Signed commands to a running decider: show one app's buckets, or fill one of them.

Only the console can make a command: it signs with the key that signs config documents, with a
prefix of its own. A peek reads the slot and writes nothing. A filling is done at most once: a
decider remembers nonces until their commands expire. After its start, it fills nothing for as long
as an older command may still live, so that no filling is done both before and after a restart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Final, Literal

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Meta, Struct

from decider.contracts.config import Config, Moment, Name, Signed, key_id
from decider.contracts.sealed import told
from decider.contracts.sealed.codes import SealError
from decider.contracts.store import Figure, NodeName, Said
from decider.contracts.vocabulary import Tier
from decider.engine import quota
from decider.engine.engine import Engine
from decider.engine.memory import app_state as apps
from decider.engine.memory import error_budget
from decider.engine.memory.windows import EPOCH
from decider.whatif.plan import Plan, plan_of

Verb = Literal["peek", "fill_burst", "fill_errors"]
# Longest time in seconds between a command's making and its expiry. Chosen: the console waits a
# second for answers, and deciders remember nonces and refuse fillings after a start for this long.
LIFE_S = 5.0
# Seconds by which the clocks of console and decider may differ. Chosen: NTP keeps them within
# milliseconds, and a command must not fail for one that drifts a little.
SKEW_S = 5.0
# Signed in front of the payload, so that a signed config document never passes for a command, nor a
# command for a config document.
_DOMAIN = b"sluice-command\x00"
# Rows of spending in one view: a window each.
_MOST_WINDOWS = 8


class CommandError(Exception):
    """A command that must not be carried out: it cannot be read, is not signed by the console, or
    would live too long.
    """


class Command(Struct, array_like=True, frozen=True):
    """A request of the console to all deciders about one app. Times are unix seconds."""

    verb: Verb
    app: Name
    nonce: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$")]
    issued_at: float
    expires_at: float


class Spending(Struct, array_like=True, frozen=True):
    """What an app spent of its error budget in one sliding window."""

    window_s: Figure
    requests: Figure
    refusals: Figure
    """Refusals by ML that spent a part of the budget."""
    spent: Figure
    """Expected false throttles: each of the refusals counts 1 - its risk."""
    left: Figure
    """Expected false throttles that the window still allows. It can be less than rate * requests -
    spent, because the running hour or day must keep the rate by itself, too.
    """


class View(Struct, array_like=True, frozen=True):
    """An app's buckets on one decider as its next request would find them. Times are unix
    seconds.
    """

    config_version: Annotated[int, Meta(ge=0)]
    tier: Annotated[int, Meta(ge=0, le=int(max(Tier)))]
    tokens: Figure
    """In the burst bucket; negative in the headroom."""
    burst: Figure
    rate: Figure
    """Tokens a second by which the bucket refills."""
    quota_used: Figure
    """Requests that this decider has admitted today, as long as it has tracked the app."""
    quota_left: Figure
    """Requests it may still admit today without another lease."""
    quota_per_day: Figure
    errors_left: Figure
    """Expected false throttles that it may still suffer from ML; 0 where its tier has no budget."""
    errors_per_hour: Figure
    """Expected false throttles that its requests of the last hour allow in all; 0 where its tier
    has no budget.
    """
    pace: Figure
    """Requests a second over the last minute."""
    refused: Figure
    """Number of the last minute's requests that were not admitted."""
    wait_until: Figure
    """Time until which its clients were told to wait; 0 when none was told to wait."""
    tracked_since: Figure
    last_seen: Figure
    # older deciders, whose budget was not a rate yet, do not send the fields below
    error_budget: Figure = 0.0
    """Share of its requests that ML may refuse wrongly, 1 for no limit; 0 when it is not known."""
    spending: Annotated[tuple[Spending, ...], Meta(max_length=_MOST_WINDOWS)] = ()
    """What was spent in the last hour and the last day; empty where its tier has no budget."""


class Answer(Struct, array_like=True, frozen=True):
    """One decider's answer to a command."""

    node: NodeName
    region: Annotated[str, Meta(max_length=128)]
    nonce: Annotated[str, Meta(max_length=32)]
    at: Moment
    view: View | None
    """The buckets after the command; None when this decider does not track the app."""
    before: View | None = None
    """The buckets before a filling that was done."""
    done: bool = False
    error: Said = ""
    """The reason why a filling was not done."""


# Bytes, chosen: several times the longest answer, twice.
ANSWER: Final = told.Kind(Answer, b"sluice-answer-1", 16_384)


def read_answer(data: bytes, nonce: str, keys: Iterable[bytes]) -> Answer:
    """Return a decider's answer to the command of this nonce. Raise SealError when it is not
    believed. `keys`: of `ANSWER`.
    """
    answer = told.unseal(data, ANSWER, keys)
    if answer.nonce != nonce:
        raise SealError(f"it is one of {answer.node} to another question")
    return answer


def sign(command: Command, key: Ed25519PrivateKey) -> bytes:
    """Return the command as signed bytes to publish."""
    payload = msgspec.msgpack.encode(command)
    return msgspec.msgpack.encode(
        Signed(payload, key.sign(_DOMAIN + payload), key_id(key.public_key()))
    )


def verify(data: bytes, keys: dict[str, Ed25519PublicKey]) -> Command:
    """Return the command in signed bytes. Raise CommandError when it cannot be read, is not signed
    with one of `keys`, or would live longer than LIFE_S.
    """
    try:
        signed = msgspec.msgpack.decode(data, type=Signed)
        keys[signed.key_id].verify(signed.signature, _DOMAIN + signed.payload)
        # Decoded only once the signature holds: nobody without the key reaches the decoder.
        command = msgspec.msgpack.decode(signed.payload, type=Command)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise CommandError(f"not a signed command: {error}") from error
    except (KeyError, InvalidSignature) as error:
        raise CommandError("the command is not signed by the console") from error
    # A longer life would outlast the pause after a start, and the command could be done twice.
    if not (
        math.isfinite(command.issued_at) and 0 <= command.expires_at - command.issued_at <= LIFE_S
    ):
        raise CommandError(f"the command must expire within {LIFE_S:.0f} s of its issue")
    return command


class Desk:
    """One decider's executor of commands."""

    def __init__(
        self, engine: Engine, keys: dict[str, Ed25519PublicKey], started_at: float
    ) -> None:
        self._engine, self._keys, self._started_at = engine, keys, started_at
        self._done: dict[str, float] = {}

    def obey(self, data: bytes, now: float) -> Answer:
        """Carry out a signed command at `now` (unix seconds) and return the answer, which says why
        when a filling was not done. Raise CommandError for bytes that are not a command of the
        console.
        """
        command = verify(data, self._keys)
        before = self._view(command.app, now)
        if command.verb == "peek":
            return self._answer(command, now, before)
        if error := self._objection(command, now, known=before is not None):
            return self._answer(command, now, before, error=error)
        # Noted first: a filling that fails halfway must not be tried again either.
        self._done[command.nonce] = command.expires_at
        self._fill(command, now)
        return self._answer(command, now, self._view(command.app, now), before=before, done=True)

    def _objection(self, command: Command, now: float, *, known: bool) -> str:
        self._done = {nonce: until for nonce, until in self._done.items() if until >= now}
        if now > command.expires_at:
            return "it had expired when it arrived"
        if command.issued_at > now + SKEW_S:
            return f"this node's clock is more than {SKEW_S:.0f} s behind the console's"
        if command.nonce in self._done:
            return "it was done already"
        if now < self._started_at + LIFE_S + SKEW_S:
            return (
                f"this node has just started; in its first {LIFE_S + SKEW_S:.0f} s it fills"
                " nothing, so that nothing is done twice"
            )
        return "" if known else "this node does not track the app, so there is nothing to fill"

    def _fill(self, command: Command, now: float) -> None:
        """Mark a bucket as new, so that the next request finds it full, or forget what is spent of
        the error budget.
        """
        # `refill` then fills the bucket as that of a new app, so there is no second rule of what
        # "full" means.
        clock, slot = self._engine.state.clock, self._engine.slot_of(command.app)
        if command.verb == "fill_errors":
            self._engine.state.spent[slot] = self._engine.state.ml_refused[slot] = 0
            return
        clock[slot, apps.BUCKET_AT] = -1.0
        # The wait that was told ends too: a client that comes back now is not early.
        clock[slot, apps.RETRY_UNTIL] = min(
            clock[slot, apps.RETRY_UNTIL], self._engine.clock.at(now)
        )

    def _answer(
        self,
        command: Command,
        now: float,
        view: View | None,
        *,
        before: View | None = None,
        done: bool = False,
        error: str = "",
    ) -> Answer:
        engine = self._engine
        return Answer(
            engine.node, engine.region_name, command.nonce, now, view, before, done, error
        )

    def _view(self, app: str, now: float) -> View | None:
        config, slot = self._engine.config, self._engine.slot_of(app)
        return None if config is None or slot < 0 else view(self._engine, config, app, slot, now)


def view(engine: Engine, config: Config, app: str, slot: int, now: float) -> View:
    """Return the buckets in a slot as they stand at `now` (unix seconds), without changing the
    state.
    """
    state, clock = engine.state, engine.state.clock[slot].tolist()
    at, skew = engine.clock.at(now), engine.clock.skew
    tier = int(state.profile[slot, apps.P_TIER])
    plan = plan_of(config, app=app, tenant=engine.tenant_in(slot), tier=tier, now=now)
    spending = _spending(state, slot, at, plan.error_budget)
    today = clock[apps.QUOTA_DAY] >= float(math.floor(now / 86_400.0))
    return View(
        config.version,
        tier,
        _tokens(clock, plan, at),
        plan.burst,
        plan.rate,
        quota_used=clock[apps.QUOTA_USED] if today else 0.0,
        quota_left=quota.seen(clock, now, plan.quota_per_day * engine.quota_share),
        quota_per_day=plan.quota_per_day,
        errors_left=min((one.left for one in spending), default=0.0),
        errors_per_hour=spending[0].requests * plan.error_budget if spending else 0.0,
        pace=_last_minute(state, slot, apps.C_60S, at) / 60.0,
        refused=_last_minute(state, slot, apps.C_REFUSED, at),
        wait_until=clock[apps.RETRY_UNTIL] + skew if clock[apps.RETRY_UNTIL] else 0.0,
        tracked_since=clock[apps.FIRST] + skew,
        last_seen=clock[apps.SEEN] + skew,
        error_budget=plan.error_budget,
        spending=spending,
    )


def _tokens(clock: list[float], plan: Plan, now: float) -> float:
    """Return what `app_state.refill` would return at `now` (engine time), without writing."""
    if clock[apps.BUCKET_AT] < 0.0:
        return plan.burst
    return min(plan.burst, clock[apps.TOKENS] + max(0.0, now - clock[apps.BUCKET_AT]) * plan.rate)


def _spending(state: apps.State, slot: int, now: float, rate: float) -> tuple[Spending, ...]:
    """Return what was spent of an error budget of `rate` in the last hour and the last day; ()
    where the rate limits nothing. `now`: engine time. No state changes.
    """
    if rate >= 1.0:
        return ()
    found = []
    for k, length in enumerate(apps.BUDGET_WINDOWS.tolist()):
        place = error_budget.position_in(state, slot, k, now)
        requests, refusals, spent = (
            float(error_budget.in_window(column, slot, k, *place))
            for column in (state.asked, state.ml_refused, state.spent)
        )
        left = float(error_budget.window_left(state, slot, k, now, rate))
        found.append(Spending(length, requests, refusals, spent, left))
    return tuple(found)


def _last_minute(state: apps.State, slot: int, column: int, now: float) -> float:
    """Return a sliding count over 60 s, as the features see it once the window has moved on to
    `now` (engine time).
    """
    at = (now - EPOCH) / 60.0
    step = math.floor(at) - int(state.window[slot, 2])
    current, previous = state.counts[slot, column : column + 2].tolist()
    if step > 0:
        current, previous = 0.0, current if step == 1 else 0.0
    return float(current + previous * (1.0 - (at - math.floor(at))))
