"""An app is who its credential says: tokens, API keys, their files, and what bad ones may cost."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from pathlib import Path

import jwt as library
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from decider.identity import api_keys, credentials, jwk
from decider.identity.credentials import Credentials
from decider.identity.errors import CredentialError, IdentityFileError, Why
from decider.identity.material import read_material
from decider.identity.settings import read_settings
from decider.node.identity_keeper import IdentityKeeper
from tests.decider import signing
from tests.decider.signing import KEY, STRANGER, claims_of, jwk_of, sealed, token


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reader(tmp_path: Path, clock: Clock) -> Credentials:
    return Credentials(read_material(signing.write_settings(tmp_path)), clock, clock)


def why(reader: Credentials, credential: str, source: str = "") -> Why:
    with pytest.raises(CredentialError) as raised:
        reader.read(credential, source)
    return raised.value.why


def test_a_signed_token_names_its_app_and_is_remembered(reader: Credentials) -> None:
    text = token("app-1")
    assert reader.known(text) is None
    assert reader.read(text, "") == "app-1"
    assert reader.known(text) == "app-1"


@pytest.mark.parametrize(("key", "alg"), [(signing.RSA, "RS256"), (signing.EC, "ES256")])
def test_every_kind_of_key_verifies_its_own_algorithm_only(
    tmp_path: Path, key: object, alg: str
) -> None:
    path = signing.write_settings(tmp_path)
    signing.write_jwks(tmp_path / "jwks.json", jwk_of(key))
    reader = Credentials(read_material(path))
    assert reader.read(token(key=key, alg=alg), "") == "app"
    assert why(reader, token(key=key, alg="EdDSA")) == Why.UNKNOWN_KEY
    assert why(reader, token(key=key, alg="HS256")) == Why.UNKNOWN_KEY


def test_a_public_key_is_never_taken_for_a_shared_secret(tmp_path: Path) -> None:
    path = signing.write_settings(tmp_path)
    secret = signing.to_base64(b"s" * 32)
    shared = {"kty": "oct", "k": secret, "kid": "shared"}
    signing.write_jwks(tmp_path / "jwks.json", jwk_of(KEY, "public"), shared)
    reader = Credentials(read_material(path))
    head = {"alg": "HS256", "kid": "public"}
    assert why(reader, sealed(head, claims_of("app"))) == Why.UNKNOWN_KEY


def mixed_up(text: str, place: int) -> str:
    parts = text.split(".")
    part = parts[place]
    parts[place] = ("A" if part[0] != "A" else "B") + part[1:]
    return ".".join(parts)


TWICE = json.dumps(claims_of("app"))[:-1].encode() + b', "sub": "other"}'
GOOD = {"alg": "EdDSA"}
FORGED = {
    "signed by a stranger": (token(key=STRANGER), Why.SIGNATURE),
    "no signature": (token().rpartition(".")[0] + ".", Why.SIGNATURE),
    "alg none": (sealed({"alg": "none"}, claims_of("app")), Why.UNKNOWN_KEY),
    "alg None, unsigned": (
        sealed({"alg": "none"}, claims_of("app")).rpartition(".")[0] + ".",
        Why.UNKNOWN_KEY,
    ),
    "no alg": (sealed({}, claims_of("app")), Why.MALFORMED),
    "alg is a list": (sealed({"alg": ["EdDSA"]}, claims_of("app")), Why.MALFORMED),
    "kid is a number": (sealed({"alg": "EdDSA", "kid": 1}, claims_of("app")), Why.MALFORMED),
    "crit": (sealed({"alg": "EdDSA", "crit": ["b64"]}, claims_of("app")), Why.MALFORMED),
    "header changed": (mixed_up(token(), 0), Why.MALFORMED),
    "signature changed": (mixed_up(token(), 2), Why.SIGNATURE),
    "another issuer": (token(iss="https://evil.example"), Why.ISSUER),
    "no issuer": (token(iss=None), Why.ISSUER),
    "another audience": (token(aud="other-api"), Why.AUDIENCE),
    "audience in a text": (token(aud="orders-api other"), Why.AUDIENCE),
    "no audience": (token(aud=None), Why.AUDIENCE),
    "audience is an object": (token(aud={"orders-api": 1}), Why.AUDIENCE),
    "expired": (token(exp=int(time.time()) - 120), Why.EXPIRED),
    "never expires": (token(exp=None), Why.MALFORMED),
    "expires true": (token(exp=True), Why.MALFORMED),
    "expires as text": (token(exp="9999999999"), Why.MALFORMED),
    "expires at NaN": (token(exp=float("nan")), Why.MALFORMED),
    "expires at infinity": (token(exp=float("inf")), Why.MALFORMED),
    "expires beyond floats": (token(exp=10**400), Why.MALFORMED),
    "expires at too many digits": (
        sealed(GOOD, json.dumps(claims_of("app"))[:-1].encode() + b', "x": ' + b"9" * 5000 + b"}"),
        Why.MALFORMED,
    ),
    "not valid yet": (token(nbf=int(time.time()) + 3600), Why.NOT_YET),
    "nbf is null": (
        sealed(GOOD, json.dumps({**claims_of("app"), "nbf": None}).encode()),
        Why.MALFORMED,
    ),
    "no app": (token(None), Why.NO_APP),
    "app is a number": (token(7), Why.NO_APP),
    "app is empty": (token(""), Why.NO_APP),
    "app is unicode": (token("äpp"), Why.NO_APP),
    "app with a line end": (token("app\r\nx-evil: 1"), Why.NO_APP),
    "app with a comma": (token("app,other"), Why.NO_APP),
    "app too long": (token("a" * 129), Why.NO_APP),
    "a claim twice": (sealed(GOOD, TWICE), Why.MALFORMED),
    "alg twice": (
        sealed(b'{"alg": "none", "alg": "EdDSA"}', claims_of("app")),
        Why.MALFORMED,
    ),
    "claims are a list": (sealed(GOOD, b"[]"), Why.MALFORMED),
    "claims nested deeply": (sealed(GOOD, b"[" * 5000), Why.MALFORMED),
    "claims no UTF-8": (sealed(GOOD, b'{"sub": "\xff"}'), Why.MALFORMED),
    "two parts": (token().rpartition(".")[0], Why.MALFORMED),
    "four parts": (token() + ".AAAA", Why.MALFORMED),
    "not a token": ("hello", Why.MALFORMED),
    "dots": ("..", Why.MALFORMED),
    "padded": (token() + "=", Why.MALFORMED),
    "two in one": (f"{token()},{token('other')}", Why.MALFORMED),
    "two tokens": (f"{token()} {token('other')}", Why.MALFORMED),
    "8 KiB of it": (token(x="y" * 5000, key=STRANGER), Why.SIGNATURE),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_or_odd_token_names_nobody(reader: Credentials, name: str) -> None:
    text, expected = FORGED[name]
    assert why(reader, text) == expected
    assert reader.known(text) is None
    assert reader.refused == {expected: 1}


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=300))
def test_no_text_is_read_without_an_answer(text: str) -> None:
    reader = Credentials(MATERIAL)
    if text:
        with pytest.raises(CredentialError):
            reader.read(text, "")


@given(st.integers(0, 400), st.integers(0, 63))
def test_a_token_with_one_digit_changed_is_no_longer_good(place: int, digit: int) -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    text = TOKEN
    place %= len(text)
    changed = text[:place] + alphabet[digit] + text[place + 1 :]
    if changed != text:
        with pytest.raises(CredentialError):
            Credentials(MATERIAL).read(changed, "")


@pytest.fixture(scope="module", autouse=True)
def material(tmp_path_factory: pytest.TempPathFactory) -> None:
    global MATERIAL, TOKEN
    MATERIAL = read_material(signing.write_settings(tmp_path_factory.mktemp("identity")))
    TOKEN = token()


def test_a_remembered_token_ends_when_it_expires(reader: Credentials, clock: Clock) -> None:
    text = token(exp=int(clock.now) + 30)
    assert reader.read(text, "") == "app"
    clock.now += 30 + 61
    assert reader.known(text) is None
    assert why(reader, text) == Why.EXPIRED


def test_the_memory_of_tokens_is_bounded(
    reader: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "MOST_GOOD", 3)
    texts = [token(f"app-{i}") for i in range(5)]
    assert [reader.read(text, "") for text in texts] == [f"app-{i}" for i in range(5)]
    assert [reader.known(text) for text in texts] == [None, None, "app-2", "app-3", "app-4"]


def test_an_address_that_sends_bad_tokens_is_refused_unread_and_others_are_not(
    reader: Credentials, clock: Clock
) -> None:
    good = token("steady")
    assert reader.read(good, "192.0.2.1") == "steady"
    found = [why(reader, token(f"a{i}", STRANGER), "192.0.2.1") for i in range(30)]
    assert found == [Why.SIGNATURE] * 20 + [Why.TOO_MANY] * 10
    assert why(reader, token("new"), "192.0.2.1") == Why.TOO_MANY
    assert reader.read(good, "192.0.2.1") == "steady"
    assert reader.read(token("new"), "192.0.2.2") == "new"
    clock.now += 10
    assert reader.read(token("new"), "192.0.2.1") == "new"


def test_a_bad_token_that_comes_again_uses_no_room(
    reader: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = token(key=STRANGER)
    verified = []
    verify = credentials.jwt.verify
    monkeypatch.setattr(credentials.jwt, "verify", lambda *a: (verified.append(1), verify(*a))[1])
    assert {why(reader, bad) for _ in range(200)} == {Why.SIGNATURE}
    assert len(verified) == 1
    assert reader.unread == 0


def test_without_room_to_verify_a_request_is_decided_by_its_address(
    reader: Credentials, clock: Clock
) -> None:
    good = token("steady")
    reader.read(good, "")
    for i in range(49):
        why(reader, token(f"a{i}", STRANGER), f"198.51.100.{i}")
    assert reader.read(token("late"), "192.0.2.7") == "source:192.0.2.7"
    assert reader.unread == 1
    assert reader.read(good, "192.0.2.7") == "steady"
    clock.now += 0.01
    assert reader.read(token("late"), "192.0.2.7") == "late"


def test_a_long_token_uses_the_room_of_several(reader: Credentials) -> None:
    long = [token(f"a{i}", STRANGER, x="y" * 5_000) for i in range(50)]
    read = 0
    for i, text in enumerate(long):
        try:
            reader.read(text, f"198.51.100.{i}")
        except CredentialError:
            read += 1
    assert 14 <= read <= 20
    assert reader.unread == 50 - read


def test_a_request_without_a_credential_is_refused_or_decided_by_its_address(
    tmp_path: Path,
) -> None:
    refusing = Credentials(read_material(signing.write_settings(tmp_path)))
    assert why(refusing, "", "192.0.2.1") == Why.MISSING
    path = signing.write_settings(tmp_path, 'without = "source"')
    kind = Credentials(read_material(path))
    assert kind.read("", "192.0.2.1") == "source:192.0.2.1"
    assert kind.read("", "") == "source:"
    assert why(kind, "eyJ.bad.one") == Why.MALFORMED


SECRET = bytes(range(32))


@pytest.fixture
def keyed(tmp_path: Path) -> Credentials:
    more = '[key]\nsecrets = "secrets"\n[table]\nfile = "apps"\n'
    path = signing.write_settings(tmp_path, more)
    (tmp_path / "secrets").write_text(f"# newest first\n{'ab' * 16}\n{SECRET.hex()}\n")
    digest = hashlib.sha256(b"k-123").hexdigest()
    (tmp_path / "apps").write_text(f"# our customers\n{digest} listed-app\n\n")
    return Credentials(read_material(path))


def test_a_key_begins_with_its_app_and_nobody_else_can_make_one(keyed: Credentials) -> None:
    key = api_keys.mint(SECRET, "shop.example")
    assert keyed.read(key, "") == keyed.known(key) == "shop.example"
    forged = [
        key.replace("shop", "bank"),
        api_keys.mint(b"x" * 32, "shop.example"),
        key[:-1] + ("0" if key[-1] != "0" else "1"),
        key[:-32],
        key.upper(),
    ]
    for text in forged:
        assert keyed.known(text) is None
        assert why(keyed, text) == Why.SIGNATURE


def test_a_listed_key_names_its_app_beside_tokens_and_keys_with_checks(keyed: Credentials) -> None:
    assert keyed.read("k-123", "") == keyed.known("k-123") == "listed-app"
    assert why(keyed, "k-124") == Why.UNKNOWN
    assert keyed.read(token("token-app"), "") == "token-app"
    assert keyed.known("k-124") is None


@pytest.mark.parametrize("app", ["", "a b", "a,b", "ä", "a" * 129])
def test_no_key_is_made_for_what_is_no_app_id(app: str) -> None:
    with pytest.raises(ValueError, match="app id"):
        api_keys.mint(SECRET, app)


BAD_FILES = {
    "identity.toml": {
        "empty": "",
        "no kind": 'without = "refuse"\n',
        "unknown name": '[jwt]\nkeys="k"\nissuer="i"\naudience="a"\nclaims="sub"\n',
        "no TOML": "[jwt\n",
        "a header of the gateway's": 'header = "x-sluice-app"\n[table]\nfile="apps"\n',
        "a header that says something else": 'header = "host"\n[table]\nfile="apps"\n',
        "no UTF-8": b"\xff\xfe",
        "huge": "#" * 70_000,
        "a missing file": '[table]\nfile = "nowhere"\n',
    },
    "jwks.json": {
        "empty": "",
        "no key": '{"keys": []}',
        "an RSA key that is too short": json.dumps(
            {"keys": [{"kty": "RSA", "n": "AQAB" * 40, "e": "AQAB"}]}
        ),
        "a short secret": json.dumps({"keys": [{"kty": "oct", "k": "c2hvcnQ"}]}),
        "for encryption only": json.dumps({"keys": [{**jwk_of(KEY), "use": "enc"}]}),
        "too many": json.dumps({"keys": [jwk_of(KEY, str(i)) for i in range(65)]}),
        "two of one kid": json.dumps({"keys": [jwk_of(KEY, "a"), jwk_of(STRANGER, "a")]}),
        "deep": "[" * 100_000,
        "a number": "7",
    },
    "secrets": {"empty": "\n", "short": "abcd\n", "not hexadecimal": "zz" * 20, "many": "ab" * 16},
    "apps": {
        "empty": "# nothing\n",
        "no app": hashlib.sha256(b"k").hexdigest(),
        "a key itself": "k-123 app\n",
        "app with a space": hashlib.sha256(b"k").hexdigest() + " a b\n",
        "not ASCII": hashlib.sha256(b"k").hexdigest() + " äpp\n",
        "a key of two apps": "".join(
            f"{hashlib.sha256(b'k').hexdigest()} {app}\n" for app in ("one", "two")
        ),
    },
}


@pytest.mark.parametrize(
    ("name", "what"), [(name, what) for name, cases in BAD_FILES.items() for what in cases]
)
def test_a_broken_file_is_refused_with_its_name_and_none_of_its_secrets(
    tmp_path: Path, name: str, what: str
) -> None:
    more = '[key]\nsecrets = "secrets"\n[table]\nfile = "apps"\n'
    path = signing.write_settings(tmp_path, more)
    (tmp_path / "secrets").write_text(SECRET.hex())
    (tmp_path / "apps").write_text(f"{hashlib.sha256(b'k').hexdigest()} app\n")
    read_material(path)
    text = BAD_FILES[name][what]
    if what == "many":
        text = (text + "\n") * 9
    file = tmp_path / name
    file.write_bytes(text) if isinstance(text, bytes) else file.write_text(text)
    with pytest.raises(IdentityFileError) as raised:
        read_material(path)
    assert str(tmp_path) in str(raised.value)
    assert "k-123" not in str(raised.value)
    assert "c2hvcnQ" not in str(raised.value)


def test_a_key_that_cannot_be_used_costs_only_itself(tmp_path: Path) -> None:
    odd = [{"kty": "OKP", "crv": "X25519", "x": "AA"}, {"kty": "new"}, {}, 7, {"kty": "EC"}]
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [*odd, jwk_of(KEY)]}))
    assert len(jwk.read_keys(tmp_path / "jwks.json")) == 1


def test_files_are_read_again_when_they_change_and_a_broken_one_keeps_the_last_good(
    tmp_path: Path,
) -> None:
    keeper = IdentityKeeper(signing.write_settings(tmp_path))
    reader, jwks = keeper.credentials, tmp_path / "jwks.json"
    old, new = token("old"), token("new", STRANGER)
    assert reader.read(old, "") == "old"

    jwks.write_text('{"keys": [')
    asyncio.run(keeper.look())
    assert "jwks.json" in keeper.status().error
    assert keeper.rejected == 1
    assert "sluice_identity_files_stale 1" in keeper.metrics()
    assert reader.known(old) == "old"

    signing.write_jwks(jwks, jwk_of(KEY, "a"), jwk_of(STRANGER, "b"))
    asyncio.run(keeper.look())
    assert keeper.status().error == ""
    assert reader.known(old) == "old"

    signing.write_jwks(jwks, jwk_of(STRANGER))
    asyncio.run(keeper.look())
    assert reader.known(old) is None
    assert why(reader, old) == Why.SIGNATURE
    assert reader.read(new, "") == "new"


def test_another_issuer_in_the_settings_counts_for_remembered_tokens_too(tmp_path: Path) -> None:
    path = signing.write_settings(tmp_path)
    keeper = IdentityKeeper(path)
    keeper.credentials.read(token(), "")
    path.write_text(path.read_text().replace(signing.ISSUER, "https://other.example"))
    asyncio.run(keeper.look())
    assert why(keeper.credentials, token()) == Why.ISSUER


def test_a_changed_header_is_told_to_need_a_restart(tmp_path: Path) -> None:
    path = signing.write_settings(tmp_path)
    keeper = IdentityKeeper(path)
    signing.write_settings(tmp_path, 'header = "x-api-key"')
    asyncio.run(keeper.look())
    assert "restart" in keeper.status().error
    assert keeper.credentials.header == "authorization"


def test_base64_with_leftover_bits_is_refused() -> None:
    assert jwk.from_base64("AQ") == b"\x01"
    for odd in ("AR", "A", "AQ==", "A Q", "AQ\n", "+/+/", "ä"):
        with pytest.raises(ValueError, match=r"(?i)base64|padding|ASCII"):
            jwk.from_base64(odd)


def test_the_settings_say_what_is_read(tmp_path: Path) -> None:
    found = read_settings(signing.write_settings(tmp_path, 'header = "x-api-key"'))
    assert (found.header, found.without, found.jwt and found.jwt.claim) == (
        "x-api-key",
        "refuse",
        "sub",
    )


def by_library(text: str) -> dict:
    """The claims as PyJWT alone reads them: where it is laxer, our own check is still needed."""
    rules = {"audience": signing.AUDIENCE, "issuer": signing.ISSUER}
    return library.decode(text, KEY.public_key(), ["EdDSA"], **rules)


LAXER = {
    "padded": token() + "==",
    "a claim twice": sealed(GOOD, TWICE),
    "alg twice": sealed(b'{"alg": "none", "alg": "EdDSA"}', claims_of("app")),
    "expires as text": token(exp=str(int(time.time()) + 600)),
    "never expires": token(exp=None),
    "crit that it knows": sealed({**GOOD, "crit": ["b64"], "b64": True}, claims_of("app")),
    "claims in UTF-16": sealed(GOOD, json.dumps(claims_of("app")).encode("utf-16")),
}


@pytest.mark.parametrize("name", LAXER)
def test_what_the_library_believes_and_we_do_not(reader: Credentials, name: str) -> None:
    assert by_library(LAXER[name])["iss"] == signing.ISSUER
    assert why(reader, LAXER[name]) == Why.MALFORMED


STRICTER = {
    # RFC 7519, section 4.1.3: each audience is a text
    "an audience beside ours is no text": (token(aud=["orders-api", 7]), Why.AUDIENCE),
    # RFC 7797, section 3: such a payload is not base64url, so it means another text
    "b64 is false": (sealed({**GOOD, "b64": False}, claims_of("app")), Why.MALFORMED),
}


@pytest.mark.parametrize("name", STRICTER)
def test_what_the_library_refuses_beyond_our_rules(reader: Credentials, name: str) -> None:
    text, expected = STRICTER[name]
    assert why(reader, text) == expected


def test_claims_that_envoy_does_not_judge_are_not_judged_here(reader: Credentials) -> None:
    text = token(iat=int(time.time()) + 3600, jti=7)
    with pytest.raises(library.InvalidTokenError):
        by_library(text)
    assert reader.read(text, "") == "app"


def test_a_public_key_in_a_sets_secret_is_passed_over(tmp_path: Path) -> None:
    pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    shared = {"kty": "oct", "k": signing.to_base64(pem)}
    signing.write_jwks(tmp_path / "jwks.json", shared, jwk_of(KEY))
    assert [sorted(key.checks) for key in jwk.read_keys(tmp_path / "jwks.json")] == [["EdDSA"]]


def test_only_the_public_half_and_the_documented_algorithms_of_a_key_are_used(
    tmp_path: Path,
) -> None:
    private = {**jwk_of(KEY), "d": signing.to_base64(KEY.private_bytes_raw())}
    other = [{**jwk_of(signing.RSA), "alg": "RS512"}, {"kty": "oct", "k": "", "alg": "none"}]
    signing.write_jwks(tmp_path / "jwks.json", private, *other)
    (key,) = jwk.read_keys(tmp_path / "jwks.json")
    assert isinstance(key.checks["EdDSA"].key, Ed25519PublicKey)


def test_a_shared_secret_and_an_rsa_key_by_pss_verify(tmp_path: Path) -> None:
    path, secret = signing.write_settings(tmp_path), bytes(range(32))
    shared = {"kty": "oct", "k": signing.to_base64(secret)}
    signing.write_jwks(tmp_path / "jwks.json", shared, jwk_of(signing.RSA))
    reader = Credentials(read_material(path))
    for key, alg in ((secret, "HS256"), (signing.RSA, "PS256")):
        assert reader.read(library.encode(claims_of("app"), key, alg), "") == "app"
    forged = library.encode(claims_of("app"), secret + b"x", "HS256")
    assert why(reader, forged) == Why.SIGNATURE
