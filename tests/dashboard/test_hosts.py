"""Under which names a server may be asked: DNS rebinding needs another one."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from hpsearch.dashboard.hosts import Hosts, hosts_of
from hpsearch.errors import SearchError

LOOPBACK = ipaddress.ip_address("127.0.0.1")
ALL = ipaddress.ip_address("0.0.0.0")
LAN = ipaddress.ip_address("192.168.7.5")
PORTS = st.sampled_from(["", ":1", ":80", ":8080", ":65535"])


@given(PORTS)
def test_loopback_is_known_at_any_port(port: str) -> None:
    for name in ("localhost", "LocalHost", "localhost.", "127.0.0.1", "127.9.8.7", "[::1]"):
        assert Hosts().admit(name + port)


@pytest.mark.parametrize(
    "header",
    [
        *("", " ", ":8080", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example"),
        *("localhost@evil.example", "evil.example:localhost", "localhost, evil.example"),
        *("localhost:8080, evil.example", "evil.example#localhost", "localhost/evil.example"),
        *("0.0.0.0", "[::]", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1\n"),
        *("localhost:", "localhost:999999", "localhost:80x", "[::1", "::1", "[::1]x", "[evil]"),
        *("192.168.7.5", "[fe80::1]", "localhost..", ".localhost", "lоcalhost", "localhost" * 99),
        *("localhost\0", "localhost ", " localhost", "[::ffff:192.168.7.5]"),
    ],
)
def test_all_else_is_another_name(header: str) -> None:
    assert not Hosts().admit(header)


@given(st.text(max_size=60), PORTS)
@example("localhost", ":80")
def test_whatever_is_admitted_is_a_name_of_the_server(name: str, port: str) -> None:
    hosts = Hosts(names=frozenset({"models.example.org"}))
    if hosts.admit(name + port):
        bare = name.lower().removesuffix(".").strip("[]").split(":")[0]
        assert bare in ("localhost", "models.example.org", "") or bare.startswith("127.")


@given(st.from_regex(r"[a-z][a-z0-9-]{0,10}(\.[a-z]{2,8}){1,3}", fullmatch=True), PORTS)
def test_a_strangers_name_is_never_admitted(name: str, port: str) -> None:
    hosts = hosts_of(ALL, "0.0.0.0", ["models.example.org"])
    assume(name not in hosts.names)
    assert not hosts.admit(name + port)


def test_one_that_listens_on_all_knows_the_machines_names_and_any_address() -> None:
    hosts = hosts_of(ALL, "0.0.0.0", [])
    assert hosts.admit(f"{socket.gethostname()}:8080")
    assert hosts.admit("203.0.113.9:80")
    assert hosts.admit("[2001:db8::7]")
    assert not hosts.admit("evil.example")


def test_one_that_listens_on_one_address_knows_that_one() -> None:
    hosts = hosts_of(LAN, "box.lan", [])
    assert hosts.admit("192.168.7.5:8080")
    assert hosts.admit("BOX.lan")
    assert hosts.admit("localhost:1234")  # the near end of an SSH tunnel
    assert not hosts.admit("192.168.7.6")
    assert not hosts_of(LOOPBACK, "127.0.0.1", []).admit(f"{socket.gethostname()}x.example")


def test_it_is_known_by_the_name_that_was_asked_for_even_if_that_is_loopbacks() -> None:
    hosts = hosts_of(ipaddress.ip_address("127.0.1.1"), "mybox", [])
    assert hosts.admit("MyBox:8080")
    assert not hosts.admit("yourbox:8080")


@pytest.mark.parametrize(
    ("allowed", "header"),
    [
        ("models.example.org", "models.example.org"),
        ("Models.Example.org:443", "models.example.org"),
        ("192.168.7.6", "192.168.7.6:80"),
        ("2001:db8::7", "[2001:db8:0::7]:80"),
        ("bücher.example", "xn--bcher-kva.example"),
    ],
)
def test_more_names_can_be_allowed(allowed: str, header: str) -> None:
    assert hosts_of(LOOPBACK, "127.0.0.1", [allowed]).admit(header)
    assert not Hosts().admit(header)


@pytest.mark.parametrize("name", ["", "*", "http://a.example", "a.example/", "a b", "a" * 400])
def test_what_is_no_name_cannot_be_allowed(name: str) -> None:
    with pytest.raises(SearchError, match="--allow-host"):
        hosts_of(LOOPBACK, "127.0.0.1", [name])
