"""What stands between a study and the network: who may ask, from where, how much and how often."""

import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, QueryParams
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Guard", "is_loopback"]

ACCESS = "study_access"
_LARGEST_BODY = 2048
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
    """Turns away what is not meant for the study, before it is looked at.

    Args:
        app: The study.
        hosts: Names under which it is reached, without port; a request's Host, and the Origin of a POST, are among them.
        token: What a visitor has to bring once, as `?token=...`; none on loopback.
        clock: Seconds.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: Sequence[str], token: str | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.app, self.hosts, self.token, self.clock = app, frozenset(hosts), token, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        refusal = self._refuse(scope)
        if refusal is not None:
            await refusal(scope, receive, _with_headers(send))
            return
        body = await _read_body(receive) if scope["method"] == "POST" else b""
        if body is None:
            await PlainTextResponse("too large", 413)(scope, receive, _with_headers(send))
            return
        await self.app(scope, _replay(body, receive) if scope["method"] == "POST" else receive, _with_headers(send))

    def _refuse(self, scope: Scope) -> ASGIApp | None:
        headers = Headers(scope=scope)
        if _host_of(f"//{headers.get('host', '')}") not in self.hosts:
            return PlainTextResponse("wrong host", 400)
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return PlainTextResponse("wrong method", 405)
        if scope["method"] == "POST" and _host_of(headers.get("origin", "")) not in self.hosts:
            return PlainTextResponse("wrong origin", 403)
        if not self._within_rate((scope.get("client") or ("",))[0]):
            return PlainTextResponse("too many requests", 429, {"retry-after": "1"})
        if self.token is None:
            return None
        brought = QueryParams(scope["query_string"]).get("token", "")
        if brought and hmac.compare_digest(brought.encode(), self.token.encode()):
            answer = RedirectResponse("/", 303)  # so that the secret does not stay in the address
            answer.set_cookie(ACCESS, self.token, httponly=True, samesite="strict", path="/")
            return answer
        held = _read_cookie(headers.get("cookie", ""), ACCESS)
        if hmac.compare_digest(held.encode(), self.token.encode()):
            return None
        return PlainTextResponse("this study needs the link with its token", 403)

    def _within_rate(self, address: str) -> bool:
        """A bucket for each address that refills at a steady rate."""
        now = self.clock()
        left, then = self._buckets.pop(address, (_BURST, now))
        left = min(_BURST, left + (now - then) * _PER_SECOND)
        self._buckets[address] = (max(0.0, left - 1), now)
        if len(self._buckets) > _ADDRESSES:
            self._buckets.popitem(last=False)
        return left >= 1


def _host_of(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


def _read_cookie(header: str, name: str) -> str:
    pairs = (part.strip().partition("=") for part in header.split(";"))
    return next((value for key, _, value in pairs if key == name), "")


async def _read_body(receive: Receive) -> bytes | None:
    """The whole body, or None where it is longer than anything the page sends."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return body
        body += message.get("body", b"")
        if len(body) > _LARGEST_BODY:
            return None
        if not message.get("more_body", False):
            return body


def _replay(body: bytes, receive: Receive) -> Receive:
    read = False

    async def again() -> Message:
        nonlocal read
        if read:
            return await receive()
        read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            raw = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
            message = {**message, "headers": [*message.get("headers", []), *raw]}
        await send(message)

    return sending
