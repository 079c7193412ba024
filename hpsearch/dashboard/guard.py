"""Who may ask the dashboard for what; and what a browser may do with the answers.

optuna-dashboard itself asks nobody who he is, and does what anybody says.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import logging
from collections.abc import Iterable
from http import HTTPStatus
from urllib.parse import parse_qsl, quote, urlencode
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from hpsearch.dashboard.answers import Answer, answer, ask, refusal, zipped
from hpsearch.dashboard.hosts import Hosts

READING = ("GET", "HEAD")
WRITING = ("POST", "PUT", "PATCH", "DELETE")
TOKEN = "token"  # noqa: S105
"""Its name in the address."""

PAGE_POLICY = "; ".join(
    (
        "default-src 'none'",
        # The parallel coordinates are drawn by code that is put together in the browser.
        "script-src 'self' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self'",
        "font-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""What the dashboard's page may load and run: nothing but its own script, from here."""

_POLICY = "Content-Security-Policy"
_OTHER_POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"
_ALWAYS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
_DROPPED = ("Server", "X-Powered-By", *(name for name, _ in _ALWAYS))

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guard:
    """A WSGI application in front of another one, which it keeps from strangers.

    Attributes:
        app: the other one.
        hosts: the names by which it may be called.
        token: what a visitor must know; None: nothing.
        writable: whether it may be told to change something.
        cookie: the name of the cookie by which a visitor is known again; a browser sends it to
            all servers of a host, so that it must be another one for each.
    """

    app: WSGIApplication
    hosts: Hosts
    token: str | None = dataclasses.field(default=None, repr=False)
    writable: bool = False
    cookie: str = "hpsearch"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answers a request."""
        try:
            found = self._refused(environ) or zipped(ask(self.app, environ), environ)
        except Exception:
            _log.exception("the dashboard could not answer")
            found = refusal(
                environ,
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "this is a fault of the dashboard; the terminal that it runs in has more",
            )
        return hardened(found).send(environ, start_response)

    def _refused(self, environ: WSGIEnvironment) -> Answer | None:
        """Why a request is not answered by the application, or what is answered in its place."""
        if not self.hosts.admit(environ.get("HTTP_HOST", "")):
            return refusal(
                environ,
                HTTPStatus.MISDIRECTED_REQUEST,
                "the dashboard is not known by this name; if it is one of its own, start it with "
                "--allow-host NAME",
            )
        method = environ["REQUEST_METHOD"]
        if self.token is not None:
            stranger = self._asked_for_token(environ, self.token, method)
            if stranger is not None:
                return stranger
        if method in READING:
            return None
        if not self.writable:
            return refusal(
                environ,
                HTTPStatus.FORBIDDEN,
                "this dashboard only shows; start it with --allow-write to change what is stored",
            )
        if method not in WRITING:
            return refusal(
                environ,
                HTTPStatus.METHOD_NOT_ALLOWED,
                f"{method!r} means nothing here",
                ("Allow", ", ".join((*READING, *WRITING))),
            )
        if _from_elsewhere(environ):
            return refusal(
                environ, HTTPStatus.FORBIDDEN, "only the dashboard's own pages may change something"
            )
        return None

    def _asked_for_token(self, environ: WSGIEnvironment, token: str, method: str) -> Answer | None:
        """What a visitor gets who has not shown the token, or has just shown it in the address."""
        query = parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True)
        given = [value for name, value in query if name == TOKEN]
        if given and method in READING:
            if not _same(given[0], token):
                return refusal(environ, HTTPStatus.FORBIDDEN, "the token in the address is wrong")
            rest = urlencode([pair for pair in query if pair[0] != TOKEN])
            path = own_path(environ) + (f"?{rest}" if rest else "")
            # Lax: with Strict, an address that was clicked in a mail's page would not get in.
            cookie = f"{self.cookie}={_pass(token)}; Path=/; HttpOnly; SameSite=Lax"
            return answer(
                HTTPStatus.SEE_OTHER,
                b"",
                "text/plain",
                ("Location", path),
                ("Set-Cookie", cookie),
                ("Cache-Control", "no-store"),
            )
        scheme, _, bearer = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() == "bearer" and _same(bearer.strip(), token):
            return None
        if _same(_cookie(environ, self.cookie), _pass(token)):
            return None
        return refusal(
            environ,
            HTTPStatus.UNAUTHORIZED,
            "this dashboard wants its token: open the whole address that 'hpsearch dashboard' "
            "printed, the part behind the question mark, too",
            ("WWW-Authenticate", 'Bearer realm="hpsearch"'),
        )


def hardened(found: Answer) -> Answer:
    """The answer with what a browser must be told about it."""
    kind = found.header("Content-Type").partition(";")[0].strip().lower()
    own = found.header(_POLICY) or _OTHER_POLICY
    names = [name for name, _ in found.headers]
    sharing = [name for name in names if name.lower().startswith("access-control-")]
    found = found.without(*_DROPPED, *sharing, _POLICY)
    found = found.plus((_POLICY, PAGE_POLICY if kind == "text/html" else own))
    if not found.header("Cache-Control"):
        # Kept, but not shown without asking: a study grows, and the next visitor is another one.
        found = found.plus(("Cache-Control", "private, no-cache"))
    return found.plus(*_ALWAYS)


def own_path(environ: WSGIEnvironment) -> str:
    """The path of a request, as an address that leads to no other site."""
    path = environ.get("PATH_INFO", "").encode("latin-1").lstrip(b"/\\")
    return f"/{quote(path)}"


def _same(given: str, wanted: str) -> bool:
    """Compares in a time that tells nothing."""
    return hmac.compare_digest(
        given.encode("utf-8", "surrogateescape"), wanted.encode("utf-8", "surrogateescape")
    )


def _pass(token: str) -> str:
    """What a browser keeps in the token's place."""
    return hmac.new(token.encode(), b"hpsearch dashboard", hashlib.sha256).hexdigest()


def _cookie(environ: WSGIEnvironment, name: str) -> str:
    # The standard library's parser gives up at the first cookie of another server that it does
    # not like.
    for pair in environ.get("HTTP_COOKIE", "").split(";"):
        key, _, value = pair.strip().partition("=")
        if key == name:
            return str(value)
    return ""


def _from_elsewhere(environ: WSGIEnvironment) -> bool:
    """Whether another site's page sent it. What is no browser says nothing of where it is from."""
    site = environ.get("HTTP_SEC_FETCH_SITE", "same-origin")
    if site not in ("same-origin", "none"):
        return True
    origin = environ.get("HTTP_ORIGIN")
    if origin is None:
        return False
    scheme, _, host = origin.partition("://")
    # Behind a proxy that encrypts, the browser's https is our http.
    return scheme not in ("http", "https") or host.lower() != environ["HTTP_HOST"].lower()
