"""Receipts come back as they were sealed, no bit of them can be changed, and they give nothing
away.
"""

from __future__ import annotations

import base64
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.contracts.features import FEATURES
from decider.contracts.ids import IdSource
from decider.contracts.vocabulary import Action, Reason, Stage
from decider.refusal.receipt import MAX_TEXT, Key, Receipt, ReceiptError, keys_of, open_sealed

TOKEN_KEY = bytes(range(32))
KEY = Key(TOKEN_KEY)
KEYS = keys_of([TOKEN_KEY])
CODES = [f"{feature.code}_{way}" for feature in FEATURES for way in ("HIGH", "LOW")]


@st.composite
def receipts(draw: st.DrawFn) -> Receipt:
    return Receipt(
        decision=IdSource().one(draw(st.floats(1.6e9, 4e9))),
        at=draw(st.floats(1.6e9, 4e9)),
        action=draw(st.sampled_from(Action)),
        stage=draw(st.sampled_from(Stage)),
        reason=draw(st.sampled_from(Reason)),
        retry_after=draw(st.integers(0, 2**32 - 1)),
        config_version=draw(st.integers(0, 2**63)),
        model=draw(st.sampled_from(["", "0123456789ab", "ffffffffffff"])),
        app=KEY.pseudonym(draw(st.text(max_size=128))),
        codes=tuple(draw(st.lists(st.sampled_from(CODES), max_size=4))),
    )


def one(**changes: object) -> Receipt:
    fields = {
        "decision": IdSource().one(1.7e9),
        "at": 1.7e9,
        "action": Action.DEFER,
        "stage": Stage.RANK,
        "reason": Reason.RISK_HIGH,
        "retry_after": 4,
        "config_version": 4187,
        "model": "0123456789ab",
        "app": KEY.pseudonym("app_7q2m4kx9"),
        "codes": ("PACE_1S_HIGH", "ABUSE_HISTORY_HIGH"),
    }
    return Receipt(**{**fields, **changes})


@settings(max_examples=300)
@given(receipt=receipts())
def test_a_receipt_opens_as_it_was_sealed(receipt: Receipt) -> None:
    text = KEY.seal(receipt)
    assert len(text) <= MAX_TEXT
    assert open_sealed(f"\n {text}\t", KEYS) == receipt


@settings(max_examples=10, deadline=None)
@given(receipt=receipts())
def test_every_single_bit_that_flips_is_noticed(receipt: Receipt) -> None:
    text = KEY.seal(receipt)
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    for at in range(8 * len(raw)):
        changed = bytearray(raw)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises(ReceiptError):
            open_sealed(base64.urlsafe_b64encode(changed).rstrip(b"=").decode(), KEYS)
    for at in range(7 * len(text)):
        letters = [*text]
        letters[at // 7] = chr(ord(letters[at // 7]) ^ 1 << at % 7)
        with pytest.raises(ReceiptError):
            open_sealed("".join(letters), KEYS)


@given(text=st.text(max_size=400))
def test_any_other_text_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(ReceiptError, match=r"receipt.*\.$"):
        open_sealed(text, KEYS)


def flipped(text: str, byte: int) -> str:
    raw = bytearray(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    raw[byte] ^= 1
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def test_malformed_forged_and_foreign_receipts_are_told_apart() -> None:
    text = KEY.seal(one())
    found = {}
    for name, wrong, keys in (
        ("nonsense", "hello", KEYS),
        ("cut short", text[:60], KEYS),
        ("padded", text + "=" * (-len(text) % 4 or 4), KEYS),
        ("too long", text + "A" * 300, KEYS),
        ("another form", flipped(text, 0), KEYS),
        ("another id", flipped(text, 9), KEYS),
        ("another end", flipped(text, -1), KEYS),
        ("cut by a little", text[:-4], KEYS),
        ("foreign", text, keys_of([b"another installation's token key"])),
        ("no key", text, {}),
    ):
        with pytest.raises(ReceiptError) as raised:
            open_sealed(wrong, keys)
        found[name] = raised.value.kind
    assert found == {
        "nonsense": "malformed",
        "cut short": "malformed",
        "padded": "malformed",
        "too long": "malformed",
        "another form": "malformed",
        "another id": "forged",
        "another end": "forged",
        "cut by a little": "forged",
        "foreign": "unknown_key",
        "no key": "unknown_key",
    }


def test_the_longest_codes_of_the_registry_fit() -> None:
    longest = tuple(sorted(CODES, key=len)[-4:])
    text = KEY.seal(one(codes=longest, retry_after=2**40))
    assert len(text) <= MAX_TEXT
    assert open_sealed(text, KEYS).codes == longest


def test_codes_that_do_not_fit_are_left_out_weakest_first() -> None:
    codes = tuple(f"CODE_{k:02d}_{'X' * 20}" for k in range(12))
    text = KEY.seal(one(codes=codes))
    kept = open_sealed(text, KEYS).codes
    assert len(text) <= MAX_TEXT
    assert 0 < len(kept) < len(codes)
    assert kept == codes[: len(kept)]


def test_nothing_but_the_decision_id_can_be_read_from_a_receipt() -> None:
    app, digest = "app_7q2m4kx9", "0123456789abcdef"
    receipt = one(model=digest[:12])
    text = KEY.seal(receipt)
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    for hidden in (
        app.encode(),
        bytes.fromhex(receipt.app),
        bytes.fromhex(receipt.model),
        TOKEN_KEY,
        b"PACE",
        b"ABUSE",
        b"HIGH",
    ):
        assert hidden not in raw
        assert hidden.decode("latin-1") not in text
    assert raw[5:21] == receipt.decision


def test_two_receipts_that_differ_in_one_field_share_no_sealed_beginning() -> None:
    texts = [KEY.seal(one(decision=IdSource().one(1.7e9), action=action)) for action in Action]
    for left, right in combinations(texts, 2):
        same = [a == b for a, b in zip(left[30:], right[30:], strict=True)]
        assert sum(same) < len(same) / 4


def test_a_pseudonym_is_the_same_for_an_app_and_differs_by_installation() -> None:
    other = Key(b"another")
    assert KEY.pseudonym("a") == Key(TOKEN_KEY).pseudonym("a")
    assert (
        len({KEY.pseudonym("a"), KEY.pseudonym("b"), other.pseudonym("a"), other.pseudonym("b")})
        == 4
    )


def test_receipts_open_after_the_key_was_rotated() -> None:
    text = KEY.seal(one())
    assert open_sealed(text, keys_of([b"the new key", TOKEN_KEY])).config_version == 4187
