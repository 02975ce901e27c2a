"""What stands between a page and the network: who may ask, from where, how much and how often."""

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
    """Turns away what is not meant for a page, before it is looked at.

    Args:
        app: The application. A body that is too large becomes an `HTTPException` of status 413 where it is read.
        hosts: Names under which it is reached, without port; a request's Host, and the Origin of a POST, are among them.
        token: What a visitor has to bring once, as `?token=...`; none on loopback.
        cookie: Name of the cookie that keeps the token.
        largest_body: Bytes of the largest body that is read.
        programs: Whether programs may ask too. They send no Origin, and the token as `Authorization: Bearer ...`.
        refuse: Makes an answer of a status and a sentence.
        clock: Seconds.
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
        app = self._refuse(scope) or self.app
        await app(scope, _bound(receive, self.largest_body), _with_headers(send))

    def _refuse(self, scope: Scope) -> ASGIApp | None:
        headers = Headers(scope=scope)
        if _host_of(f"//{headers.get('host', '')}") not in self.hosts:
            return self.refuse(400, "wrong host")
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return self.refuse(405, "wrong method")
        if scope["method"] == "POST" and not self._comes_from_here(headers.get("origin")):
            return self.refuse(403, "wrong origin")
        if not self._within_rate((scope.get("client") or ("",))[0]):
            answer = self.refuse(429, "too many requests")
            answer.headers["retry-after"] = "1"
            return answer
        if self.token is None:
            return None
        if self._is_token(QueryParams(scope["query_string"]).get("token", "")):
            answer = RedirectResponse("/", 303)  # so that the secret does not stay in the address
            answer.set_cookie(self.cookie, self.token, httponly=True, samesite="strict", path="/")
            return answer
        if self._is_token(_read_cookie(headers.get("cookie", ""), self.cookie)):
            return None
        if not self.programs:
            return self.refuse(403, "this page needs the link with its token")
        kind, _, brought = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._is_token(brought.strip()):
            return None
        answer = self.refuse(
            401, "this page needs the link with its token; a program sends `Authorization: Bearer TOKEN`"
        )
        answer.headers["www-authenticate"] = "Bearer"
        return answer

    def _comes_from_here(self, origin: str | None) -> bool:
        """Every browser says from whose page a POST comes."""
        return self.programs if origin is None else _host_of(origin) in self.hosts

    def _is_token(self, brought: str) -> bool:
        return self.token is not None and hmac.compare_digest(brought.encode(), self.token.encode())

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


def _bound(receive: Receive, largest: int) -> Receive:
    """Count a body while it comes, whatever its headers say of it."""
    read = 0

    async def receiving() -> Message:
        nonlocal read
        message = await receive()
        if message["type"] == "http.request":
            read += len(message.get("body", b""))
            if read > largest:
                raise HTTPException(413, f"too large: no more than {largest:,} bytes are read")
        return message

    return receiving


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            raw = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
            message = {**message, "headers": [*message.get("headers", []), *raw]}
        await send(message)

    return sending
