"""A decider takes outcomes that a gateway's program of its fleet has just sent, each once."""

from __future__ import annotations

import msgspec
import pytest

from decider.contracts.requests import Outcome
from decider.contracts.sealed import codes
from decider.contracts.sealed import outcomes as sealing
from decider.contracts.sealed.codes import SealError
from decider.contracts.sealed.outcomes import Sealer
from decider.node.outcome_intake import OutcomeIntake

NOW = 1_763_476_327.0
TOKEN_KEY = b"k" * 32
KEY = sealing.derive_key(TOKEN_KEY)
BODY = msgspec.msgpack.encode([Outcome("app_1", "orders-read", NOW, 200, 9.0)])


def take(intake: OutcomeIntake, seal: bytes | None, at: float = NOW, body: bytes = BODY) -> int:
    """Has it read an entry that came then; how many outcomes it takes."""
    fields = {b"b": body} if seal is None else {b"b": body, b"s": seal}
    return len(intake.take(f"{int(at * 1e3)}-7".encode(), fields, NOW + 600.0)[0])


def test_entries_of_two_gateways_and_of_two_programs_of_one_are_taken() -> None:
    intake = OutcomeIntake(TOKEN_KEY)
    one, two = Sealer(KEY, "one"), Sealer(KEY, "two")
    for k in range(3):
        assert take(intake, one.seal(BODY, NOW + k), NOW + k) == 1
        assert take(intake, two.seal(BODY, NOW + k), NOW + k) == 1
    assert take(intake, Sealer(KEY, "one").seal(BODY, NOW + 5.0), NOW + 5.0) == 1
    assert intake.status(0.0).refused == 0


def test_what_is_forged_or_put_back_is_refused_and_told() -> None:
    intake, sealer = OutcomeIntake(TOKEN_KEY), Sealer(KEY, "edge")
    first, second = sealer.seal(BODY, NOW), sealer.seal(BODY, NOW)
    assert take(intake, second) == 1
    stranger = Sealer(b"x" * 32, "edge").seal(BODY, NOW)
    other = Sealer(codes.derive_key(TOKEN_KEY, b"sluice-reports-3"), "edge").seal(BODY, NOW)
    refused: list[tuple[bytes | None, float, bytes, str]] = [
        (None, NOW, BODY, "not sealed"),
        (b"", NOW, BODY, "bytes"),
        (stranger, NOW, BODY, "not from this fleet"),
        (other, NOW, BODY, "not from this fleet"),
        (sealer.seal(BODY, NOW), NOW, BODY + b"\x00", "of other outcomes"),
        (sealer.seal(BODY, NOW), NOW + 60.0, BODY, "old ones were put back"),
        (sealer.seal(BODY, NOW + 60.0), NOW, BODY, "a clock is wrong"),
        (second, NOW, BODY, "sent them before"),
        (first, NOW, BODY, "sent them before"),
        (codes.seal(b"\x90", KEY), NOW, BODY, "cannot be read"),
    ]
    for seal, at, body, why in refused:
        with pytest.raises(SealError, match=why):
            take(intake, seal, at, body)
        assert why in intake.status(0.0).why
    assert (intake.refused, intake.unsealed) == (len(refused), 0)
    assert take(intake, sealer.seal(BODY, NOW)) == 1


def test_a_decider_that_is_told_to_takes_what_has_no_seal_but_no_wrong_one() -> None:
    intake = OutcomeIntake(TOKEN_KEY, unsealed=True)
    assert take(intake, None) == 1
    with pytest.raises(SealError):
        take(intake, Sealer(b"x" * 32, "edge").seal(BODY, NOW))
    told = intake.status(0.0)
    assert (told.unsealed, told.recent_unsealed, told.refused) == (1, 1, 1)


def test_after_an_id_of_the_future_the_deciders_own_time_holds() -> None:
    """The store's ids only grow, so one that somebody dates ahead would spoil all after it."""
    intake, sealer = OutcomeIntake(TOKEN_KEY), Sealer(KEY, "edge")
    ahead, late = NOW + 1e9, NOW + 600.0
    assert take(intake, sealer.seal(BODY, late), ahead) == 1
    with pytest.raises(SealError, match="put back"):
        take(intake, sealer.seal(BODY, NOW), ahead)


def test_many_runs_take_no_more_room() -> None:
    intake = OutcomeIntake(TOKEN_KEY)
    for k in range(sealing.MOST_RUNS + 9):
        take(intake, Sealer(KEY, f"gateway-{k}").seal(BODY, NOW))
    assert len(intake._checker._newest) == sealing.MOST_RUNS
