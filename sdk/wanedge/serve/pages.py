"""Plain HTTP beside the WebSocket: who may come in, the kiosk page, and what a supervisor asks.

The page is public and holds no secret. Everything that reaches the model, and the metrics, wants the token where there
is one. Without a token the server listens on loopback only, and a page of another site must not reach it: the browser's
Origin has to be the server's own, and Host has to be a name of this machine, which also stops a foreign name that was
pointed at it (DNS rebinding).
"""

import hmac
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from websockets.http11 import Request, Response

LIVE_PATH: Final = "/v1/live/sessions"
TOKEN_PROTOCOL: Final = "wanedge.token."  # a browser can send its token in no other place than a subprotocol
PROTOCOL: Final = "wanedge.v1"

_FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/kiosk.css": ("kiosk.css", "text/css; charset=utf-8"),
    "/kiosk.js": ("kiosk.js", "text/javascript; charset=utf-8"),
    "/player.js": ("player.js", "text/javascript; charset=utf-8"),
    "/connection.js": ("connection.js", "text/javascript; charset=utf-8"),
    "/devices.js": ("devices.js", "text/javascript; charset=utf-8"),
    "/playback-worklet.js": ("playback-worklet.js", "text/javascript; charset=utf-8"),
    "/capture-worklet.js": ("capture-worklet.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; media-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(self), geolocation=(), display-capture=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Gate:
    """Who may come in. token: None where only this machine can come at all. origins: of pages beside the server's own.
    secure: the server speaks TLS."""

    token: str | None
    origins: frozenset[str]
    secure: bool

    def refusal(self, request: "Request") -> tuple[HTTPStatus, str] | None:
        """Why a request is refused; None when it may come in. The token is asked for separately."""
        hosts, origins = request.headers.get_all("Host"), request.headers.get_all("Origin")
        if len(hosts) != 1 or len(origins) > 1:
            return HTTPStatus.BAD_REQUEST, "one Host and at most one Origin are needed"
        if self.token is None and not is_loopback(host_name(hosts[0])):
            return HTTPStatus.FORBIDDEN, "without a token the server answers to names of this machine only"
        own = f"{'https' if self.secure else 'http'}://{hosts[0]}".lower()
        if origins and origins[0].lower() not in self.origins | {own}:
            return HTTPStatus.FORBIDDEN, "pages of this origin are not allowed; see --origin"
        return None

    def knows(self, request: "Request") -> bool:
        """Whether the request has the token, as `Authorization: Bearer` or as a subprotocol; true without a token."""
        if self.token is None:
            return True
        offered = [
            value[len("bearer ") :].strip()
            for value in request.headers.get_all("Authorization")
            if value.lower().startswith("bearer ")
        ]
        for value in request.headers.get_all("Sec-WebSocket-Protocol"):
            names = (name.strip() for name in value.split(","))
            offered += [name[len(TOKEN_PROTOCOL) :] for name in names if name.startswith(TOKEN_PROTOCOL)]
        return any(hmac.compare_digest(value.encode(), self.token.encode()) for value in offered)


@dataclass(frozen=True)
class State:
    """What a supervisor asks for. health, readiness: None, or what is wrong. metrics: their text."""

    health: Callable[[], str | None]
    readiness: Callable[[], str | None]
    metrics: Callable[[], str]


def answer(request: "Request", gate: Gate, state: State) -> "Response":
    """Answer a plain HTTP request."""
    path = urlsplit(request.path).path
    if request.method not in ("GET", "HEAD"):
        return respond(HTTPStatus.METHOD_NOT_ALLOWED, "only GET is answered here\n")
    if path in _FILES:
        name, kind = _FILES[path]
        return respond(HTTPStatus.OK, _web_file(name), kind)
    if path in ("/healthz", "/readyz"):
        problem = state.health() if path == "/healthz" else state.readiness()
        return respond(HTTPStatus.OK if problem is None else HTTPStatus.SERVICE_UNAVAILABLE, f"{problem or 'ok'}\n")
    if path == "/metrics":
        if not gate.knows(request):
            return respond(HTTPStatus.UNAUTHORIZED, "the token is missing or wrong\n")
        return respond(HTTPStatus.OK, state.metrics(), "text/plain; version=0.0.4; charset=utf-8")
    if path == LIVE_PATH:
        return respond(HTTPStatus.UPGRADE_REQUIRED, "this path speaks WebSocket\n")
    return respond(HTTPStatus.NOT_FOUND, "there is nothing here\n")


def respond(status: HTTPStatus, body: str | bytes, kind: str = "text/plain; charset=utf-8") -> "Response":
    """A response with the headers that every page has."""
    from websockets.datastructures import Headers
    from websockets.http11 import Response

    data = body.encode() if isinstance(body, str) else body
    headers = Headers(_HEADERS)
    headers["Content-Type"], headers["Content-Length"], headers["Connection"] = kind, str(len(data)), "close"
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(int(status), status.phrase, headers, data)


def host_name(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def is_loopback(name: str) -> bool:
    """Whether a host name or address can only be this machine."""
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


@cache
def _web_file(name: str) -> bytes:
    return (files("wanedge.serve") / "web" / name).read_bytes()
