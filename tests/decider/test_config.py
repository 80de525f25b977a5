"""A config document that is not one is refused with a sentence, whatever its bytes."""

import math
import time

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from decider.contracts import config, defaults

KEY = Ed25519PrivateKey.from_private_bytes(bytes(31) + b"k")
GOOD = config.sign(defaults.config(7, time.time()), KEY)
TRUSTED = {msgspec.msgpack.decode(GOOD, type=config.Signed).key_id: KEY.public_key()}


def signed(payload: bytes) -> bytes:
    made = msgspec.msgpack.decode(GOOD, type=config.Signed)
    return msgspec.msgpack.encode(
        msgspec.structs.replace(made, payload=payload, signature=KEY.sign(payload))
    )


def test_a_document_that_was_signed_is_read_back() -> None:
    assert config.verify(GOOD, TRUSTED).version == 7


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xa3\xff\xfe\xfd",
        b"\x91" * 5_000,
        b"\xc1",
        msgspec.msgpack.encode({"version": "7"}),
        GOOD,
    ],
    ids=["empty", "not UTF-8", "nested", "reserved", "typed wrong", "signed twice"],
)
def test_what_was_signed_and_is_no_document_is_refused(payload: bytes) -> None:
    with pytest.raises(config.ConfigError, match="malformed config document"):
        config.verify(signed(payload), TRUSTED)


@given(
    st.binary(max_size=200)
    | st.integers(0, len(GOOD) - 1).map(lambda k: GOOD[:k] + bytes([GOOD[k] ^ 1]) + GOOD[k + 1 :])
)
def test_no_byte_can_be_changed(data: bytes) -> None:
    with pytest.raises(config.ConfigError):
        config.verify(data, TRUSTED)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([], False),
        ([None], True),
        ([1_000.5], True),
        ([1_000.0], False),  # a switch ends at its `until`, not after it
        ([999.0], False),
        ([999.0, None], True),
        ([2_000.0, 999.0], True),
    ],
)
def test_a_switch_is_engaged_until_its_latest_end(ends: list[float | None], expected: bool) -> None:
    document = msgspec.structs.replace(
        defaults.config(7, 0.0), switches=[config.Switch(config.ALL_ML, end) for end in ends]
    )
    assert config.engaged(document, config.ALL_ML, 1_000.0) is expected
    assert bool(config.in_force(document.switches, 1_000.0)) is expected
    assert not config.engaged(document, config.OBSERVE_ONLY, 1_000.0)


# The fields of format 1. Every later one stands in `config.ADDED`.
FORMAT_1 = {
    config.Config: "version feature_schema issued_at tiers services switches model tenants"
    " overrides lists sampling actions ml_time_limit_ms unknown_tier nodes",
    config.Switch: "name until",
    config.ModelRef: "name version digest",
    config.TierPolicy: "rate burst quota_per_day weight friction harm error_budget_per_hour"
    " rank_from",
    config.EndpointPolicy: "method template cost batch",
    config.Service: "name prefixes capacity latency_ms target endpoints",
    config.TenantPolicy: "tenant weight",
    config.Override: "id kind subject until action multiplier",
    config.ListEntry: "verdict kind subject until",
    config.Sampling: "budget_per_s admit refuse block enterprise_refuse",
    config.ActionWeights: "keep leak load friction",
    # came with format 3 as a whole
    config.UnknownApps: "treatment rate burst",
}


def in_format_1() -> config.Config:
    """The starting document with nothing that format 1 cannot say."""
    start = defaults.config(7, 0.0)
    tiers = [
        msgspec.structs.replace(tier, headroom_to="all", error_budget=None) for tier in start.tiers
    ]
    return msgspec.structs.replace(start, tiers=tiers)


NEW_SCHEMA = msgspec.structs.replace(
    in_format_1(), model=config.ModelRef("risk", 1, "ab" * 32, "0123456789abcdef")
)


def fields_by_path(struct: type, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], type]:
    """Every field of the document by its path, with the struct that holds it."""
    found: dict[tuple[str, ...], type] = {}
    for field in msgspec.structs.fields(struct):
        here = (*path, field.encode_name)
        found[here] = struct
        kind, inner = msgspec.inspect.type_info(field.type), here
        if isinstance(kind, msgspec.inspect.ListType):
            kind, inner = kind.item_type, (*here, "*")
        for one in getattr(kind, "types", (kind,)):
            if isinstance(one, msgspec.inspect.StructType):
                found |= fields_by_path(one.cls, inner)
    return found


def test_each_field_that_format_1_lacks_has_its_format_and_a_default() -> None:
    every = fields_by_path(config.Config)
    assert set(every.values()) == set(FORMAT_1)
    later = {
        path: struct for path, struct in every.items() if path[-1] not in FORMAT_1[struct].split()
    }
    assert set(later) == {addition.path for addition in config.ADDED} | {("format",)}
    for path, struct in later.items():
        field = next(f for f in msgspec.structs.fields(struct) if f.name == path[-1])
        assert not field.required
    formats = {one.format for one in (*config.ADDED, *config.GROWN)}
    assert formats == set(range(2, config.FORMAT + 1))


def test_a_document_is_written_in_the_oldest_format_that_can_say_what_it_says() -> None:
    plain = msgspec.structs.replace(in_format_1(), format=2)
    with_model = msgspec.structs.replace(plain, model=config.ModelRef("risk", 1, "ab" * 32))
    for one in (plain, with_model):
        written = msgspec.msgpack.decode(config.encode(one))
        assert set(written) == set(FORMAT_1[config.Config].split())
        assert config.decode(config.encode(one)) == msgspec.structs.replace(one, format=1)
    for tier in written["tiers"]:
        assert set(tier) == set(FORMAT_1[config.TierPolicy].split())
    assert set(written["model"]) == set(FORMAT_1[config.ModelRef].split())

    assert config.needed_format(NEW_SCHEMA) == (2, "model.feature_schema")
    written = msgspec.msgpack.decode(config.encode(NEW_SCHEMA))
    assert (written["format"], written["model"]["feature_schema"]) == (2, "0123456789abcdef")
    assert config.decode(config.encode(NEW_SCHEMA)) == msgspec.structs.replace(NEW_SCHEMA, format=2)


def test_a_field_in_each_item_of_a_list_is_found_and_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As it will be for a tier's field: `rank_from` stands in for a new one."""
    monkeypatch.setattr(config, "ADDED", (config.Addition(3, ("tiers", "*", "rank_from")),))
    document = in_format_1()
    usual = [msgspec.structs.replace(tier, rank_from=0.15) for tier in document.tiers]
    same = msgspec.structs.replace(document, tiers=usual)
    assert config.needed_format(same) == (1, "")
    assert all("rank_from" not in t for t in msgspec.msgpack.decode(config.encode(same))["tiers"])
    other = msgspec.structs.replace(
        same, tiers=[*usual[:3], msgspec.structs.replace(usual[3], rank_from=0.5)]
    )
    assert config.needed_format(other) == (3, "tiers.*.rank_from")


def test_a_time_that_is_no_number_is_named_with_its_rule() -> None:
    override = config.Override(id="ovr_7", kind="app", subject="app_1", until=math.nan)
    entry = config.ListEntry(verdict="block", kind="tenant", subject="acme", until=math.inf)
    plain = defaults.config(7, 0.0)
    for bad, named in (
        (msgspec.structs.replace(plain, overrides=[override]), "override ovr_7"),
        (msgspec.structs.replace(plain, lists=[entry]), "block tenant acme"),
        (msgspec.structs.replace(plain, issued_at=math.nan), "issued_at"),
    ):
        with pytest.raises(config.ConfigError, match=rf"{named} is not a finite number"):
            config.verify(config.sign(bad, KEY), TRUSTED)


def test_looking_for_newer_fields_costs_little_beside_decoding() -> None:
    """Every decider reads every push: looking up each field's default took 3 ms of it."""
    # one in format 2, whose fields of format 3 are all looked at
    payload = config.encode(NEW_SCHEMA)

    def cpu_time(read) -> float:
        began = time.process_time()
        for _ in range(200):
            read()
        return time.process_time() - began

    plain = cpu_time(lambda: msgspec.msgpack.decode(payload, type=config.Config))
    # twice measured, and 170 times without what is kept
    assert cpu_time(lambda: config.decode(payload)) < 20 * plain


def test_a_document_of_a_later_format_is_refused_with_both_numbers() -> None:
    later = config.FORMAT + 1
    plain = msgspec.to_builtins(defaults.config(7, 0.0)) | {"format": later, "unheard_of": 1}
    says = rf"written in format {later}; .* reads formats 1 to {config.FORMAT}"
    with pytest.raises(config.ConfigError, match=says):
        config.verify(signed(msgspec.msgpack.encode(plain)), TRUSTED)


def test_a_field_without_its_format_is_refused() -> None:
    plain = msgspec.to_builtins(NEW_SCHEMA) | {"format": 1}
    with pytest.raises(config.ConfigError, match="which its format does not have"):
        config.verify(signed(msgspec.msgpack.encode(plain)), TRUSTED)


def with_services(count: int) -> config.Config:
    start = in_format_1()
    one = msgspec.structs.replace(start.services[0], endpoints=[])
    services = [
        msgspec.structs.replace(one, name=f"service-{k}", prefixes=[f"/v2/service-{k}"])
        for k in range(count)
    ]
    return msgspec.structs.replace(start, services=services)


def test_a_thousand_services_fit_and_older_deciders_are_not_sent_more_than_they_take() -> None:
    assert config.needed_format(with_services(64)) == (1, "")
    for count in (65, config.MOST_SERVICES):
        many = with_services(count)
        assert config.needed_format(many) == (5, "services (more than 64)")
        read = config.verify(config.sign(many, KEY), TRUSTED)
        assert (len(read.services), read.format) == (count, 5)
    old = msgspec.to_builtins(with_services(65))
    del old["format"]
    with pytest.raises(config.ConfigError, match="which its format does not have"):
        config.verify(signed(msgspec.msgpack.encode(old)), TRUSTED)
    with pytest.raises(config.ConfigError, match="services"):
        config.verify(config.sign(with_services(config.MOST_SERVICES + 1), KEY), TRUSTED)


def test_a_document_of_another_feature_schema_is_followed() -> None:
    """Only its model depends on the schema; a kill switch must reach every decider."""
    document = msgspec.structs.replace(in_format_1(), feature_schema="0123456789abcdef")
    assert config.verify(config.sign(document, KEY), TRUSTED) == document
