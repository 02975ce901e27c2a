"""Bind a socket, and serve an application on it until Ctrl-C."""

import secrets
import socket
from collections.abc import Callable, Sequence

import uvicorn
from starlette.types import ASGIApp

from gantoolkit.errors import DataError
from gantoolkit.web.guard import is_loopback

__all__ = ["address_of", "choose_token", "listen", "names_of", "run_app"]

_CONNECTIONS = 256


def choose_token(host: str, token: str | None) -> str | None:
    """The token that visitors need: `token` if given, None on loopback, and a random one otherwise."""
    return token or (None if is_loopback(host) else secrets.token_urlsafe(16))


def names_of(host: str, names: Sequence[str]) -> list[str]:
    """The host names of a server that binds to `host`.

    Raises:
        DataError: When it binds to every address and no name is given.
    """
    if host in ("0.0.0.0", "::") and not names:
        raise DataError(f"--host {host}: needs --name with the host name or address that visitors use")
    return [name.lower() for name in ("127.0.0.1", "localhost", "::1", host, *names)]


def address_of(host: str, port: int, names: Sequence[str], token: str | None) -> str:
    """The URL of the page, with its token."""
    name = next(iter(names), host)
    name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{port}/{f'?token={token}' if token else ''}"


def listen(host: str, port: int) -> socket.socket:
    """Bind to a host and port.

    Raises:
        DataError: When the address cannot be bound.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise DataError(f"cannot listen on {host}, port {port} ({error.strerror}); choose another --port") from error


def run_app(app: ASGIApp, listening: socket.socket, *, stop: Callable[[], None] = lambda: None) -> None:
    """Serve until interrupted.

    Args:
        app: The application, with its guard.
        listening: The socket that `listen` returns.
        stop: Called on interruption, before waiting for open requests.
    """
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=3,
    )
    with listening:
        _Server(config, stop).run(sockets=[listening])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._stop = stop

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stop()
        await super().shutdown(sockets)
