"""Whose address counts: who connected, or whom a trusted proxy names."""

from __future__ import annotations

import ipaddress

import pytest
from django.core.exceptions import ImproperlyConfigured
from environs import Env

from console import client_address
from console.local import environment

PROXIES = [ipaddress.ip_network(one) for one in ("10.0.0.0/24", "fd00::/64")]


def settled(peer: str, forwarded: str = "", *, named: str = "", trusted=PROXIES) -> str:
    environ = {
        "REMOTE_ADDR": peer,
        "HTTP_X_FORWARDED_FOR": forwarded,
        "HTTP_X_SLUICE_CLIENT": named,
    }
    client_address.settle(environ, trusted)
    assert "HTTP_X_FORWARDED_FOR" not in environ
    assert "HTTP_X_SLUICE_CLIENT" not in environ
    return environ["REMOTE_ADDR"]


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "6.6.6.6, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "6.6.6.6, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9,10.0.0.1", "203.0.113.9"),
        ("fd00::1", "2001:DB8:0::9", "2001:db8::9"),
        ("10.0.0.1", "::ffff:203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "203.0.113.9, unknown", "10.0.0.1"),
        ("10.0.0.1", "x" * 100_000, "10.0.0.1"),
        ("10.0.0.1", "6.6.6.6," + "10.0.0.2," * 50 + "10.0.0.3", "10.0.0.2"),
        ("192.0.2.1", "203.0.113.9", "192.0.2.1"),
        ("192.0.2.1", "10.0.0.1", "192.0.2.1"),
        ("", "203.0.113.9", ""),
    ],
)
def test_the_client_is_the_last_address_that_no_trusted_proxy_has(peer, forwarded, client) -> None:
    assert settled(peer, forwarded) == client


def test_without_trusted_proxies_the_header_counts_for_nothing() -> None:
    assert settled("10.0.0.1", "203.0.113.9", trusted=[]) == "10.0.0.1"


def test_the_envoy_on_our_socket_names_who_connected_and_nobody_else_does() -> None:
    assert settled("", "203.0.113.9, 10.0.0.1", named="10.0.0.1") == "203.0.113.9"
    assert settled("", "10.0.0.1", named="192.0.2.1") == "192.0.2.1"
    assert settled("192.0.2.1", named="10.0.0.1") == "192.0.2.1"
    assert settled("", named="nonsense") == ""


def test_only_a_trusted_proxy_says_that_a_client_came_over_https() -> None:
    for peer, scheme in (("10.0.0.1", "https"), ("192.0.2.1", "http")):
        environ = {
            "REMOTE_ADDR": peer,
            "HTTP_X_FORWARDED_PROTO": "https",
            "wsgi.url_scheme": "https",
        }
        client_address.settle(environ, PROXIES)
        assert environ["wsgi.url_scheme"] == scheme
        assert ("HTTP_X_FORWARDED_PROTO" in environ) == (scheme == "https")


def test_trusted_proxies_are_addresses_or_networks(monkeypatch) -> None:
    monkeypatch.setenv("PROXIES", "10.0.0.5, 192.168.7.0/24,fd00::1")
    found = environment.read_networks(Env(), "PROXIES")
    assert [str(one) for one in found] == ["10.0.0.5/32", "192.168.7.0/24", "fd00::1/128"]


@pytest.mark.parametrize(
    "wrong", ["proxy.example", "10.0.0.1/24", "0.0.0.0/0", "::/0", "10.0.0.1,x"]
)
def test_what_is_no_proxys_address_is_refused_with_a_sentence(monkeypatch, wrong: str) -> None:
    monkeypatch.setenv("PROXIES", wrong)
    with pytest.raises(ImproperlyConfigured, match="PROXIES must"):
        environment.read_networks(Env(), "PROXIES")


def test_the_variable_of_before_is_refused_with_what_to_set(monkeypatch) -> None:
    monkeypatch.setenv("SLUICE_BEHIND_PROXY", "true")
    with pytest.raises(ImproperlyConfigured, match=r"no longer read\. Name the proxies"):
        environment.refuse_renamed(Env(), "SLUICE_BEHIND_PROXY", "Name the proxies.")
