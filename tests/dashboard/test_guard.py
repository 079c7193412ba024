"""Who may ask for what, and what browsers are told about the answers."""

from __future__ import annotations

import gzip
import io
import json
import logging
from collections.abc import Iterable
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from searches_by_hand import Reply, request

from hpsearch.dashboard.guard import Guard
from hpsearch.dashboard.hosts import Hosts

TOKEN = "correct-horse-battery"
PAGE = b"<!DOCTYPE html><p>a page"
VISIBLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=30)


class Inner:
    """The application behind the guard; it notes who got through."""

    def __init__(
        self,
        body: bytes = PAGE,
        kind: str = "text/html; charset=UTF-8",
        headers: Iterable[tuple[str, str]] = (),
    ) -> None:
        self.asked: list[str] = []
        self._body = body
        self._headers = [("Content-Type", kind), *headers]

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        self.asked.append(environ["REQUEST_METHOD"])
        start_response("200 OK", self._headers)
        return [self._body]


def assert_hard(reply: Reply) -> None:
    assert reply.header("X-Content-Type-Options") == "nosniff"
    assert reply.header("X-Frame-Options") == "DENY"
    assert reply.header("Referrer-Policy") == "no-referrer"
    assert reply.header("Cross-Origin-Resource-Policy") == "same-origin"
    policy = reply.header("Content-Security-Policy")
    assert policy is not None
    assert "default-src 'none'" in policy
    assert not [key for key, _ in reply.headers if key.lower().startswith("access-control-")]


def test_a_page_may_run_its_own_script_and_nothing_else() -> None:
    reply = request(Guard(app=Inner(), hosts=Hosts()))
    assert (reply.code, reply.body) == (200, PAGE)
    assert_hard(reply)
    policy = dict(
        (rule.strip().split(" ", 1))
        for rule in str(reply.header("Content-Security-Policy")).split(";")
    )
    assert policy["script-src"] == "'self' 'unsafe-eval'"
    for name in ("base-uri", "form-action", "frame-ancestors"):
        assert policy[name] == "'none'"
    assert not any("*" in value or "http" in value for value in policy.values())


@given(
    st.lists(
        st.sampled_from(
            [
                ("Access-Control-Allow-Origin", "*"),
                ("access-control-allow-credentials", "true"),
                ("content-security-policy", "default-src *"),
                ("X-FRAME-OPTIONS", "ALLOWALL"),
                ("referrer-policy", "unsafe-url"),
                ("x-content-type-options", "none"),
                ("Cross-Origin-Resource-Policy", "cross-origin"),
            ]
        )
    )
)
def test_what_the_application_says_of_safety_is_not_believed(
    headers: list[tuple[str, str]],
) -> None:
    assert_hard(request(Guard(app=Inner(headers=headers), hosts=Hosts())))


def test_an_answers_own_narrower_policy_stays() -> None:
    own = [("Content-Security-Policy", "default-src 'none'; sandbox")]
    reply = request(Guard(app=Inner(kind="image/png", headers=own), hosts=Hosts()))
    assert reply.header("Content-Security-Policy") == own[0][1]
    reply = request(Guard(app=Inner(kind="application/json"), hosts=Hosts()))
    assert "sandbox" in str(reply.header("Content-Security-Policy"))


@pytest.mark.parametrize("host", ["evil.example:8080", "", "localhost.evil.example"])
def test_another_name_is_misdirected(host: str) -> None:
    inner = Inner()
    reply = request(Guard(app=inner, hosts=Hosts(), writable=True), host=host)
    assert reply.code == 421
    assert "--allow-host" in reply.json()["reason"]
    assert_hard(reply)
    assert inner.asked == []


@given(st.one_of(st.sampled_from(["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"]), VISIBLE))
def test_who_may_only_look_changes_nothing(method: str) -> None:
    assume(method not in ("GET", "HEAD"))
    inner = Inner()
    reply = request(Guard(app=inner, hosts=Hosts()), "/api/studies/1", method=method)
    assert reply.code == 403
    assert "--allow-write" in reply.json()["reason"]
    assert inner.asked == []


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, 200),
        ({"origin": "http://localhost:8080", "sec_fetch_site": "same-origin"}, 200),
        ({"origin": "https://localhost:8080"}, 200),
        ({"origin": "http://LOCALHOST:8080"}, 200),
        ({"sec_fetch_site": "none"}, 200),
        ({"origin": "http://localhost:8081"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://localhost"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
        ({"origin": "file://localhost:8080"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"origin": "http://localhost:8080", "sec_fetch_site": "cross-site"}, 403),
    ],
)
def test_only_its_own_pages_change_something(headers: dict[str, str], code: int) -> None:
    inner = Inner()
    for method in ("POST", "PUT", "DELETE"):
        reply = request(
            Guard(app=inner, hosts=Hosts(), writable=True), "/api/studies", method=method, **headers
        )
        assert reply.code == code
    assert len(inner.asked) == (3 if code == 200 else 0)


def test_odd_methods_mean_nothing_where_one_may_write() -> None:
    inner = Inner()
    for method in ("OPTIONS", "TRACE", "CONNECT", "get"):
        reply = request(Guard(app=inner, hosts=Hosts(), writable=True), method=method)
        assert reply.code == 405
        assert "POST" in str(reply.header("Allow"))
    assert inner.asked == []


def with_token(**options: Any) -> Guard:
    return Guard(app=Inner(), hosts=Hosts(), token=TOKEN, cookie="hpsearch-8080", **options)


def test_the_tokens_way_from_the_address_into_a_cookie() -> None:
    guard = with_token()
    assert request(guard).code == 401
    reply = request(guard, "/dashboard/studies/3", f"after=2&token={TOKEN}&x=%26")
    assert reply.code == 303
    assert reply.header("Location") == "/dashboard/studies/3?after=2&x=%26"
    assert_hard(reply)
    cookie = str(reply.header("Set-Cookie"))
    assert TOKEN not in cookie + reply.body.decode()
    (morsel,) = SimpleCookie(cookie).values()
    assert morsel["httponly"]
    assert morsel["samesite"] == "Lax"
    kept = f"{morsel.key}={morsel.value}"
    assert request(guard, cookie=kept).code == 200
    assert request(guard, cookie=f"other=\x01bad,; {kept}; theme=dark").code == 200
    assert request(guard, cookie=kept.replace("8080", "8081")).code == 401
    assert request(guard, cookie=f"{morsel.key}={TOKEN}").code == 401
    other = Guard(app=Inner(), hosts=Hosts(), token=TOKEN + "x", cookie="hpsearch-8080")
    assert request(other, cookie=kept).code == 401


def test_programs_give_the_token_in_a_header() -> None:
    assert request(with_token(), authorization=f"Bearer {TOKEN}").code == 200
    assert request(with_token(), authorization=f"bearer {TOKEN}").code == 200
    assert request(with_token(), authorization=f"Basic {TOKEN}").code == 401
    reply = request(with_token(), method="DELETE", authorization=f"Bearer {TOKEN}")
    assert (reply.code, "--allow-write" in reply.json()["reason"]) == (403, True)
    assert request(with_token(writable=True), method="DELETE", query=f"token={TOKEN}").code == 401


@given(st.text(max_size=40))
def test_a_wrong_token_opens_nothing(wrong: str) -> None:
    assume(wrong.strip() != TOKEN)
    guard = with_token()
    try:
        query = f"token={quote(wrong)}"
    except UnicodeEncodeError:
        query = "token=%ED%A0%80"
    assert request(guard, query=query).code == 403
    sent = wrong.encode("utf-8", "replace").decode("latin-1")
    assert request(guard, authorization=f"Bearer {sent}").code == 401
    assert request(guard, cookie=f"hpsearch-8080={sent}").code == 401
    assert guard.app.asked == []  # type: ignore[attr-defined]


@given(st.text(st.characters(codec="utf-8"), max_size=30))
def test_the_redirection_leads_to_this_server_whatever_the_path(path: str) -> None:
    reply = request(with_token(), "/" + path, f"token={TOKEN}")
    location = str(reply.header("Location"))
    assert location.isascii()
    assert location.isprintable()
    assert urlsplit(urljoin("http://localhost:8080/", location)).netloc == "localhost:8080"
    assert location[1:2] not in ("/", "\\")


def test_a_browser_is_refused_with_a_page_and_its_scripts_with_json() -> None:
    guard = Guard(app=Inner(), hosts=Hosts(), token=TOKEN)
    page = request(guard, accept="text/html,application/xhtml+xml")
    assert str(page.header("Content-Type")).startswith("text/html")
    assert b"token" in page.body
    assert_hard(page)
    reply = request(Guard(app=Inner(), hosts=Hosts()), method="<b>X", accept="text/html")
    assert b"<b>" not in reply.body
    assert "token" in request(guard).json()["reason"]


def test_a_fault_is_told_to_the_log_and_not_to_the_visitor(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: Any) -> list[bytes]:
        raise RuntimeError("postgresql://me:secret@db")

    with caplog.at_level(logging.ERROR):
        reply = request(Guard(app=broken, hosts=Hosts()))
    assert reply.code == 500
    assert b"secret" not in reply.body
    assert "RuntimeError" in caplog.text
    assert_hard(reply)


@given(st.binary(min_size=0, max_size=3000).map(lambda b: b * 3))
def test_what_is_compressed_is_the_same_again(body: bytes) -> None:
    guard = Guard(app=Inner(body, "application/json"), hosts=Hosts())
    reply = request(guard, accept_encoding="br, gzip;q=0.8")
    if reply.header("Content-Encoding") == "gzip":
        assert reply.header("Content-Length") == str(len(reply.body))
        assert gzip.decompress(reply.body) == body
    else:
        assert len(body) < 1000
        assert reply.body == body


@pytest.mark.parametrize(
    ("kind", "accepted"),
    [("image/png", "gzip"), ("application/json", ""), ("text/csv", "gzip;q=0"), ("text/csv", "br")],
)
def test_what_is_sent_as_it_is(kind: str, accepted: str) -> None:
    guard = Guard(app=Inner(b"x" * 5000, kind), hosts=Hosts())
    reply = request(guard, accept_encoding=accepted)
    assert reply.header("Content-Encoding") is None
    assert reply.body == b"x" * 5000


def test_who_asks_for_the_head_gets_no_body() -> None:
    closed = []

    class Body(io.BytesIO):
        def close(self) -> None:
            closed.append(True)
            super().close()

    def app(_: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "image/png"), ("Content-Length", "4")])
        return Body(b"body")

    reply = request(Guard(app=app, hosts=Hosts()), method="HEAD")
    assert (reply.code, reply.body, reply.header("Content-Length")) == (200, b"", "4")
    assert closed
    assert json.loads(request(Guard(app=app, hosts=Hosts()), host="evil.example").body)
