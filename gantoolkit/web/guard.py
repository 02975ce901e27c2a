"""Middleware that checks each request's host, origin, rate, token and size."""

import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, QueryParams
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Guard", "is_loopback"]

_PER_SECOND, _BURST = 200.0, 600.0
_ADDRESSES = 4096
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that binds to `host`."""
    return host in ("127.0.0.1", "::1", "localhost")


class Guard:
    """ASGI middleware that rejects unauthorized or excessive requests before they reach the application.

    Args:
        app: The application. Reading a body that is too large raises an `HTTPException` of status 413.
        hosts: Host names of the server, without port. A request's Host, and the Origin of a POST, must be one of them.
        token: The token that a visitor must send once, as `?token=...`; None requires no token.
        cookie: Name of the cookie that stores the token.
        largest_body: Size limit of a body in bytes.
        programs: Whether programs are served too. They send no Origin, and the token as `Authorization: Bearer ...`.
        refuse: Makes an error response from a status and a message.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Sequence[str],
        token: str | None,
        cookie: str,
        largest_body: int,
        programs: bool = False,
        refuse: Callable[[int, str], Response] = lambda status, sentence: PlainTextResponse(sentence, status),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.app, self.hosts, self.token, self.clock = app, frozenset(hosts), token, clock
        self.cookie, self.largest_body, self.programs, self.refuse = cookie, largest_body, programs, refuse
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        app = self._check(scope) or self.app
        await app(scope, _limit_body(receive, self.largest_body), _with_headers(send))

    def _check(self, scope: Scope) -> ASGIApp | None:
        """The response that rejects a request or stores its token; None to pass it on."""
        headers = Headers(scope=scope)
        if _host_of(f"//{headers.get('host', '')}") not in self.hosts:
            return self.refuse(400, "the Host header is not a host name of this server")
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return self.refuse(405, "method not allowed")
        if scope["method"] == "POST" and not self._is_same_origin(headers.get("origin")):
            return self.refuse(403, "requests from pages of another origin are not allowed")
        if not self._within_rate((scope.get("client") or ("",))[0]):
            response = self.refuse(429, "too many requests")
            response.headers["retry-after"] = "1"
            return response
        if self.token is None:
            return None
        if self._is_token(QueryParams(scope["query_string"]).get("token", "")):
            response = RedirectResponse("/", 303)  # removes the token from the address bar
            response.set_cookie(self.cookie, self.token, httponly=True, samesite="strict", path="/")
            return response
        if self._is_token(_read_cookie(headers.get("cookie", ""), self.cookie)):
            return None
        if not self.programs:
            return self.refuse(403, "this page needs the link with its token")
        scheme, _, credentials = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(credentials.strip()):
            return None
        response = self.refuse(
            401, "this page needs the link with its token; a program sends `Authorization: Bearer TOKEN`"
        )
        response.headers["www-authenticate"] = "Bearer"
        return response

    def _is_same_origin(self, origin: str | None) -> bool:
        """Whether a POST comes from our own page. Browsers always send the Origin."""
        return self.programs if origin is None else _host_of(origin) in self.hosts

    def _is_token(self, text: str) -> bool:
        return self.token is not None and hmac.compare_digest(text.encode(), self.token.encode())

    def _within_rate(self, address: str) -> bool:
        """Apply a token bucket for each address."""
        now = self.clock()
        tokens, last_time = self._buckets.pop(address, (_BURST, now))
        tokens = min(_BURST, tokens + (now - last_time) * _PER_SECOND)
        self._buckets[address] = (max(0.0, tokens - 1), now)
        if len(self._buckets) > _ADDRESSES:
            self._buckets.popitem(last=False)
        return tokens >= 1


def _host_of(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


def _read_cookie(header: str, name: str) -> str:
    pairs = (part.strip().partition("=") for part in header.split(";"))
    return next((value for key, _, value in pairs if key == name), "")


def _limit_body(receive: Receive, limit: int) -> Receive:
    """Count a body's bytes as they arrive, independently of its headers."""
    size = 0

    async def limited_receive() -> Message:
        nonlocal size
        message = await receive()
        if message["type"] == "http.request":
            size += len(message.get("body", b""))
            if size > limit:
                raise HTTPException(413, f"too large: at most {limit:,} bytes are accepted")
        return message

    return limited_receive


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            raw = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
            message = {**message, "headers": [*message.get("headers", []), *raw]}
        await send(message)

    return send_with_headers
