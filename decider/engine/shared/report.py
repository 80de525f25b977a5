"""What a decider tells the other deciders of its region, several times a second: how much each
service is asked for and given here, and which tenants ask for most of it.

A report is authenticated with a key that all deciders of a fleet derive from `token.key`, numbered,
and bounded in size. Whatever is wrong with it costs the whole report, which its sender repeats a
quarter of a second later.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np

from decider.contracts.config import MALFORMED, MOST_SERVICES, Moment
from decider.contracts.sealed import codes
from decider.contracts.sealed.codes import SealError
from decider.engine.shared.state import N_TIERS

# Columns of a report's figures (float32), a row for each service: cost units a second asked for and
# admitted here of late, the price here, and for each tier demand and weight of unnamed tenants.
ASKED, ADMITTED, PRICE, REST = range(4)
N_FIGURES = REST + 2 * N_TIERS  # two for each tier
# One named tenant: its service's row in the report, its tier and weight, and how many cost units a
# second it asks for and uses here. `tenant`: keyed hash of its id, the same at all deciders.
# No decider reads `use`; it is for a service's page, which tells who gets what.
NAMED = np.dtype(
    [
        ("service", "<u2"),
        ("tier", "<u2"),
        ("weight", "<f4"),
        ("demand", "<f4"),
        ("use", "<f4"),
        ("tenant", "<i8"),
    ]
)
# Most tenants that a report names. Chosen: they cost each reader some ten microseconds.
MOST_NAMED: Final = 1_024
# Most bytes of a report. Chosen: as many as so many services and tenants take.
MOST_BYTES: Final = 262_144
# Largest figure, cost units a second. Chosen: beyond any service.
MOST_UNITS: Final = 1e9
# At most 16 bytes. The number rises with each change of the format, so that no decider misreads
# a report of another version: to it, that is not authentic.
_PURPOSE: Final = b"sluice-reports-3"


class ReportError(Exception):
    """A message is no report of a decider of this fleet."""


class Report(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One report."""

    node: str
    started_at: Moment
    """Start of the decider's process, unix seconds: reports of an earlier process are ignored."""
    number: int
    """Counts up from 1 with each report of a process."""
    services: list[str]
    figures: bytes
    """float32 (services, N_FIGURES)."""
    named: bytes
    """NAMED (n,)."""

    def read_figures(self) -> np.ndarray:
        """Return the figures, float32 (services, N_FIGURES)."""
        return np.frombuffer(self.figures, "<f4").reshape(len(self.services), N_FIGURES)

    def read_named(self) -> np.ndarray:
        """Return the named tenants, NAMED (n,)."""
        return np.frombuffer(self.named, NAMED)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Report).decode


def derive_key(token_key: bytes) -> bytes:
    """Return the key of a fleet's reports. It is not `token.key` itself, which has other uses."""
    return codes.derive_key(token_key, _PURPOSE)


def seal(report: Report, key: bytes) -> bytes:
    """Return a report as bytes, behind its authentication code."""
    return codes.seal(_encode(report), key)


def unseal(data: bytes, key: bytes) -> Report:
    """Return the report that `seal` made, with all figures within their ranges. Raise ReportError
    for anything else.
    """
    try:
        report = _decode(codes.unseal(data, key, MOST_BYTES))
    except SealError as error:
        raise ReportError(f"a report is not believed: {error}") from error
    except MALFORMED as error:
        raise ReportError(f"a report cannot be read: {error}") from error
    _check(report)
    return report


def _check(report: Report) -> None:
    """Raise ReportError where a report's parts do not fit or a figure is out of range."""
    services, named = len(report.services), len(report.named) // NAMED.itemsize
    if services > MOST_SERVICES or named > MOST_NAMED or report.number < 1:
        raise ReportError(f"a report has {services} services and {named} tenants")
    if len(report.figures) != 4 * N_FIGURES * services or len(report.named) % NAMED.itemsize:
        raise ReportError("a report's figures do not fit its services")
    figures, tenants = report.read_figures(), report.read_named()
    within = bool(((figures >= 0.0) & (figures <= MOST_UNITS)).all())
    for name, most in (("demand", MOST_UNITS), ("use", MOST_UNITS), ("weight", MOST_UNITS)):
        # NaN fails both comparisons
        within &= bool(((tenants[name] >= 0.0) & (tenants[name] <= most)).all())
    within &= bool((tenants["weight"] > 0.0).all() and (tenants["tier"] < N_TIERS).all())
    if not within or not (tenants["service"] < services).all():
        raise ReportError("a figure of a report is out of range")
