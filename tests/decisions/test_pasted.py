"""What is pasted: a credential is looked up by its digest and leaves no trace; everything else is
read as what it is.
"""

from __future__ import annotations

import logging

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from console.pages.lookup import pasted_text
from decider.contracts.ids import format_decision_id, token_digest
from decisions.models.decision import SavedSearch
from decisions.search import credentials
from tests.decisions.factory import event, id_at
from tests.pages import shown

pytestmark = pytest.mark.django_db
LOOKUP = "/lookup"
SECRET = "sk_live_4eC39HqLyjWDarjtT1zdp7dc"


@pytest.fixture(autouse=True)
def token_key(settings, keys) -> bytes:
    settings.SLUICE_KEYS = keys
    return bytes.fromhex((keys / "token.key").read_text())


@pytest.mark.parametrize("written", [SECRET, f"Bearer {SECRET}", f"  bearer   {SECRET} "])
def test_a_token_leads_to_its_digest_and_nowhere_else(
    store, browser, token_key, caplog, written
) -> None:
    digest = token_digest(token_key, SECRET)
    (one,) = store([event(token_digest=digest, app="app_x")])
    client = browser()
    with (
        CaptureQueriesContext(
            connection,
        ) as queries,
        caplog.at_level(logging.DEBUG),
    ):
        response = client.post(LOOKUP, {"q": written, "f": "1", "range": "24h"})
        page = client.get(response["Location"])
    assert response["Location"].startswith(f"{LOOKUP}?q=token%3A{digest}&range=24h")
    assert format_decision_id(one.id) in shown(page)
    assert not any(SECRET in q["sql"] for q in queries)
    assert SECRET not in caplog.text + shown(page) + response["Location"] + str(
        dict(client.session)
    )


@pytest.mark.parametrize(
    "written", [SECRET, "Bearer abc", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.x", "a" * 400]
)
def test_an_unknown_credential_is_neither_searched_nor_repeated(browser, caplog, written) -> None:
    client = browser()
    for headers in ({}, {"hx-request": "true"}):
        with CaptureQueriesContext(connection) as queries, caplog.at_level(logging.DEBUG):
            response = client.post(LOOKUP, {"q": written}, headers=headers)
        assert "looks like a credential" in shown(response)
        assert "HX-Push-Url" not in response
        assert written not in shown(response) + caplog.text
        assert not any(written in q["sql"] for q in queries)


def test_who_may_not_see_digests_may_not_look_tokens_up(store, browser, token_key) -> None:
    digest = token_digest(token_key, SECRET)
    store([event(token_digest=digest)])
    client = browser("sre")
    assert pasted_text.NOT_YOURS in shown(client.post(LOOKUP, {"q": SECRET}))
    page = client.get(LOOKUP, {"q": f"token:{digest}"})
    assert pasted_text.NOT_YOURS in shown(page)
    assert digest not in shown(page).partition('id="found"')[2]


def test_without_the_key_it_says_so(browser, settings, tmp_path) -> None:
    settings.SLUICE_KEYS = tmp_path / "none"
    assert "token.key cannot be read" in shown(browser().post(LOOKUP, {"q": SECRET}))


def test_htmx_gets_the_results_and_the_safe_address(store, known, browser) -> None:
    store([event()])
    response = browser().post(LOOKUP, {"q": "order sync"}, headers={"hx-request": "true"})
    assert "<html" not in shown(response)
    assert response["HX-Push-Url"].startswith(f"{LOOKUP}?q=order+sync&range=1h")


BASE62 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def of(alphabet: str, size: int) -> st.SearchStrategy[str]:
    """A secret of that many characters, with a digit and a letter that is no hexadecimal digit, as
    nearly all have.
    """
    return st.text(alphabet, min_size=size, max_size=size).map(lambda text: f"z1{text[2:]}")


SECRETS = st.one_of(
    st.builds(
        "{}_{}".format, st.sampled_from(["sk", "pk_live", "rk_test", "tok", "key"]), of(BASE62, 24)
    ),
    st.builds(
        "{}_{}".format,
        st.sampled_from(["ghp", "gho", "ghs", "github_pat", "npm", "hf", "sluice"]),
        of(BASE62, 36),
    ),
    st.builds(
        "{}-{}".format, st.sampled_from(["xoxb", "xoxp", "glpat", "xapp"]), of(BASE62 + "-", 40)
    ),
    st.builds(
        "AKIA{}".format, st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", min_size=16, max_size=16)
    ),
    st.builds("eyJ{}.eyJ{}.{}".format, of(BASE62, 20), of(BASE62, 30), of(BASE62 + "-_", 43)),
    st.builds(
        "{}:{}".format,
        st.from_regex(r"[a-z_]{3,20}", fullmatch=True).filter(lambda t: t not in _NAMED),
        of(BASE62, 24),
    ),
    st.builds(
        "{} {}".format,
        st.sampled_from(["Bearer", "bearer", "Token", "Basic", "apikey"]),
        of(BASE62, 20),
    ),
    st.builds("https://{}:{}@example.org/x".format, of(BASE62, 8), of(BASE62, 12)),
    of(BASE62, 44),
    st.text("0123456789abcdef", min_size=64, max_size=64).map(lambda text: f"a1{text[2:]}"),
)
_NAMED = credentials._NAMED_IDS
HEX = "0123456789abcdef"
WORDS = st.lists(
    st.sampled_from(
        ["order", "sync", "Tidewell", "Retail", "key", "token", "api", "basic", "north", "accounts"]
    ),
    min_size=1,
    max_size=7,
)
INNOCENT = st.one_of(
    st.uuids().map(str),
    st.text(HEX, min_size=32, max_size=32),
    st.builds("req_{}".format, st.text(HEX, min_size=12, max_size=12)),
    st.builds(
        "{}:{}".format,
        st.sampled_from(["req", "id", "trace", "Request-Id"]),
        st.text(HEX, min_size=32, max_size=32),
    ),
    st.builds(
        "00-{}-{}-01".format,
        st.text(HEX, min_size=32, max_size=32),
        st.text(HEX, min_size=16, max_size=16),
    ),
    st.builds(
        "Root=1-{}-{}".format,
        st.text(HEX, min_size=8, max_size=8),
        st.text(HEX, min_size=24, max_size=24),
    ),
    st.text("0123456789ABCDEFGHJKMNPQRSTVWXYZ", min_size=26, max_size=26),  # a ULID
    st.builds(
        "{}_{}".format,
        st.sampled_from(["app", "ten"]),
        st.text(BASE62.lower(), min_size=4, max_size=12),
    ),
    st.builds("shop/{}/{}".format, st.sampled_from(["eu", "us"]), st.integers(1, 99)),
    st.builds(
        lambda words, sep: sep.join(words), WORDS, st.sampled_from([" ", "-", "_", ", ", " & "])
    ),
    st.builds(
        "{} {}".format,
        st.sampled_from(["Token", "Basic", "Key"]),
        st.sampled_from(["service", "Plan", "accounts"]),
    ),
    st.builds("web-{}:{}".format, st.integers(1, 99), st.integers(1, 65_535)),
)


@given(SECRETS)
def test_a_credential_looks_like_one(text) -> None:
    assert credentials.looks_secret(f" {text} ")


@given(INNOCENT)
def test_ids_and_names_do_not_look_like_credentials(text) -> None:
    assert not credentials.looks_secret(text)


@given(st.integers(0, 2**48 - 1))
def test_a_decision_id_never_looks_like_a_secret(milliseconds) -> None:
    assert not credentials.looks_secret(format_decision_id(id_at(milliseconds / 1000)))


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("dec_019e70448800765", "15 digits; a whole one has dec_ and 32"),
        ("dec_019e704488007659996558f77ba88fzz", "“z” is not a hexadecimal digit"),
        ("019e7044-8800-4659-9965-58f77ba88f92", "not a version 7 UUID"),
    ],
)
def test_what_is_almost_an_id_is_told_what_is_wrong_with_it(browser, written, says) -> None:
    assert says in shown(browser().post(LOOKUP, {"q": written}))
    assert says in shown(browser("auditor").get(LOOKUP, {"q": written}))


def test_the_palette_finds_apps_decisions_and_saved_searches(known, browser) -> None:
    client = browser()
    SavedSearch.objects.create(
        owner_id=client.session["_auth_user_id"],
        name="Order refusals",
        query="q=order+sync&range=1h&f=1",
    )
    found = shown(client.post("/ui/palette", {"q": "order"}))
    assert "/apps/app_7q2m4kx9" in found
    assert "/lookup?q=order+sync&amp;range=1h&amp;f=1" in found
    name = format_decision_id(id_at(1_780_000_000.0))
    assert f"/decisions/{name}" in shown(client.post("/ui/palette", {"q": name}))
    assert shown(client.post("/ui/palette", {"q": SECRET})).strip() == ""
    assert client.get("/ui/palette").status_code == 405
    assert browser("").post("/ui/palette", {"q": "order"}).status_code == 403


ODD = "hunter2 for orders"
"""A credential without a known form is found by its digest alone."""


@pytest.mark.parametrize("insist", ["", "request"])
@pytest.mark.parametrize(
    "written", [SECRET, "Bearer abc", "AKIAIOSFODNN7EXAMPLE", "billing:s3cr3tS3cr3tS3cr3t"]
)
def test_a_credential_in_an_address_is_neither_searched_nor_repeated(
    browser, caplog, written, insist
) -> None:
    client = browser()
    with CaptureQueriesContext(connection) as queries:
        response = client.get(LOOKUP, {"q": written, "as": insist, "range": "24h", "f": "1"})
        page = client.get(response["Location"])
        part = client.get(LOOKUP, {"q": written, "as": insist}, headers={"hx-request": "true"})
        tail = client.get(
            "/ui/lookup/tail",
            {"q": written, "as": insist, "after": "019e7044-8800-7659-9965-58f77ba88f92", "f": "1"},
        )
        csv = client.get("/lookup.csv", {"q": written, "as": insist})
    assert response["Location"] == f"{LOOKUP}?range=24h&f=1"
    assert "looks like a credential" in shown(page)
    assert "looks like a credential" in shown(part)
    assert csv.status_code == 400
    assert written not in str(dict(client.session))
    for answer in (page, part, tail):
        assert written not in shown(answer) + str(answer.headers)
    assert not any(written in q["sql"] for q in queries)


@pytest.mark.parametrize("role", ["support", "sre"])
@pytest.mark.parametrize("insist", ["", "name"])
def test_what_a_stored_decision_carried_is_a_credential_whatever_it_looks_like(
    store, browser, token_key, role, insist
) -> None:
    digest = token_digest(token_key, ODD.partition(" ")[2])
    store([event(token_digest=digest)])
    client = browser(role)
    with CaptureQueriesContext(connection) as queries:
        answer = client.get(LOOKUP, {"q": ODD, "as": insist}, follow=True)
        client.post(LOOKUP, {"q": ODD, "as": insist})
        client.post("/ui/palette", {"q": ODD})
        client.post("/lookup/saved", {"name": "One", "query": f"q={ODD}"})
    assert not any(ODD in q["sql"] for q in queries)
    assert ODD not in shown(answer)
    assert ("Read as <b>a token" in shown(answer)) is (role == "support")
    assert not SavedSearch.objects.exists()


def test_a_token_of_before_the_key_was_replaced_is_found(
    store, browser, settings, token_key
) -> None:
    digest = token_digest(token_key, SECRET)
    store([event(token_digest=digest)])
    (settings.SLUICE_KEYS / "token.old").write_text(f"{'07' * 32}\n{token_key.hex()}\n")
    (settings.SLUICE_KEYS / "token.key").write_text("08" * 32)
    assert f"token%3A{digest}" in browser().post(LOOKUP, {"q": SECRET})["Location"]
    (settings.SLUICE_KEYS / "token.old").write_text("no key")
    assert "token.old cannot be read" in shown(browser("auditor").post(LOOKUP, {"q": SECRET}))


def test_a_digest_prefix_hides_no_token(browser) -> None:
    with CaptureQueriesContext(connection) as queries:
        page = shown(browser().get(LOOKUP, {"q": f"token:{SECRET}"}, follow=True))
    assert SECRET not in page
    assert not any(SECRET in q["sql"] for q in queries)


ID = "dec_01a21087bc6470008123456789abcdef"
RECEIPT = "AX_" + "r" * 60


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"Reference: {ID}", ID),
        (f"sluice-decision: {ID}", ID),
        (
            (f'{{"title": "Not served now", "status": 429, "decision": "{ID}", "retry_after": 4}}'),
            ID,
        ),
        (
            (
                f"HTTP/1.1 429 Too Many Requests\r\nsluice-decision: {ID}\r\nsluice-receipt:"
                f" {RECEIPT}\r\n"
            ),
            RECEIPT,
        ),
        (f"Sluice-Receipt: {RECEIPT}", RECEIPT),
        (f"Authorization: Bearer {SECRET}", f"Bearer {SECRET}"),
        (f"X-Api-Key: {SECRET}", SECRET),
        (f"{ID} and {ID[:-1]}0", f"{ID} and {ID[:-1]}0"),
        ("order sync", "order sync"),
        (" app_7q2m4kx9 ", "app_7q2m4kx9"),
    ],
)
def test_what_people_really_paste_holds_what_they_mean(text: str, found: str) -> None:
    assert pasted_text.meant(text) == found


@pytest.mark.parametrize("headers", [{}, {"hx-request": "true"}])
def test_a_typed_decision_id_opens_its_page_stored_or_not(browser, headers) -> None:
    answer = browser().post(LOOKUP, {"q": f"Reference: {ID}"}, headers=headers)
    assert answer.headers.get("Location", answer.headers.get("HX-Redirect")) == f"/decisions/{ID}"
