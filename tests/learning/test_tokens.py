"""The tokens of the demo's clients are good for whoever verifies them by the shipped examples."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from console.local import gateway
from decider.contracts.requests import CheckRequest
from decider.identity.credentials import Credentials
from decider.identity.material import read_material
from learning.traffic import tokens
from learning.traffic.client import GatewayClient
from learning.traffic.tokens import Signer


@pytest.fixture
def reader(tmp_path: Path) -> Credentials:
    tokens.ensure_keys(tmp_path).rename(tmp_path / "jwks.json")
    text = (gateway.EXAMPLE.parent / "identity.toml").read_text()
    (tmp_path / "identity.toml").write_text(text)
    return Credentials(read_material(tmp_path / "identity.toml"))


def test_a_token_names_its_app_and_each_credential_has_its_own(
    reader: Credentials, tmp_path: Path
) -> None:
    signer = Signer(tmp_path / tokens.KEY_FILE)
    found = [signer.token("app-1"), signer.token("app-1", "t1"), signer.token("app-1", "t2")]
    assert len(set(found)) == 3
    assert [reader.read(text, "") for text in found] == ["app-1"] * 3
    assert signer.token("app-1", "t1") == found[1]


def test_a_token_is_renewed_before_it_ends(tmp_path: Path) -> None:
    tokens.ensure_keys(tmp_path)
    now = 7_199.0
    signer = Signer(tmp_path / tokens.KEY_FILE, lambda: now)
    before = signer.token("app-1")
    now = 7_200.0
    assert signer.token("app-1") != before


def test_keys_are_made_once_and_read_by_nobody_else(tmp_path: Path) -> None:
    first = tokens.ensure_keys(tmp_path).read_bytes()
    assert tokens.ensure_keys(tmp_path).read_bytes() == first
    assert (tmp_path / tokens.KEY_FILE).stat().st_mode & 0o077 == 0


def test_a_client_with_a_signer_does_not_claim_to_be_an_app(tmp_path: Path) -> None:
    tokens.ensure_keys(tmp_path)
    signer = Signer(tmp_path / tokens.KEY_FILE)
    request = CheckRequest("app-1", "GET", "/v2/orders/1", token="t1", request_id="r-1")
    head = GatewayClient("http://127.0.0.1:1", signer=signer)._encode(request, "").decode()
    assert "x-sluice-app" not in head
    assert re.search(r"authorization: Bearer eyJ[\w.-]+\r\n", head)


def test_the_examples_name_the_demos_issuer_and_audience() -> None:
    text = gateway.EXAMPLE.read_text()
    provider = _find(yaml.safe_load(text), "providers")["apps"]
    assert (provider["issuer"], provider["audiences"]) == (tokens.ISSUER, [tokens.AUDIENCE])


def _find(tree: object, name: str) -> dict:
    """The first mapping called `name` in a tree."""
    if isinstance(tree, dict):
        if name in tree:
            return tree[name]
        tree = list(tree.values())
    for branch in tree if isinstance(tree, list) else []:
        if found := _find(branch, name):
            return found
    return {}
