"""Stored decisions as a busy decider sends them, for the parts that fill a database."""

from __future__ import annotations

from typing import NamedTuple

from decider.contracts import features
from decider.contracts.event import Event

# Digest of a model that does not exist; stored rows only need its length.
MODEL = "8c1f9a52" * 8
# Value, raw risk and raw value of a ranked decision.
OTHER_SCORES = (0.4, 1.1, -0.4)


class Outcome(NamedTuple):
    """The fields of a stored decision that tell how it was decided."""

    action: int
    stage: int
    reason: int
    arm: int
    inclusion_probability: float


class Place(NamedTuple):
    """Service and path template that a request went to."""

    service: str
    path: str


def stored_event(
    event_id: bytes,
    at: float,
    app: int,
    token_digest: str,
    place: Place,
    outcome: Outcome,
    columns: tuple[bytes, bytes],
    risk: float | None = None,
    config_version: int = 1,
) -> Event:
    """Return one event of app number `app` at `at` (unix seconds).

    `columns` are its features and signals, encoded. `risk` is None when no model was asked; then
    there are no other scores either.
    """
    value, raw_risk, raw_value = OTHER_SCORES if risk is not None else (None, None, None)
    return Event(
        id=event_id,
        at=at,
        request_id=f"req_{event_id.hex()}",
        region="local",
        node="d01",
        app=f"app_{app:08x}",
        tenant=f"ten_{app // 10:06x}",
        tier=app % 4,
        token_digest=token_digest,
        method="GET",
        endpoint=place.path,
        service=place.service,
        action=outcome.action,
        observed=False,
        stage=outcome.stage,
        reason=outcome.reason,
        retry_after=4.0,
        risk=risk,
        value=value,
        raw_risk=raw_risk,
        raw_value=raw_value,
        model=MODEL,
        arm=outcome.arm,
        ml_state=0,
        config_version=config_version,
        feature_schema=features.SCHEMA,
        features=columns[0],
        signals=columns[1],
        inclusion_probability=outcome.inclusion_probability,
        latency_us=12.5,
        payload_bytes=120,
    )
