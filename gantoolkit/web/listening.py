"""The socket that a page is reached through, from the first request to Ctrl-C."""

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
    """What visitors have to bring: on loopback nothing unless it is asked for, elsewhere a token, made up if none is given."""
    return token or (None if is_loopback(host) else secrets.token_urlsafe(16))


def names_of(host: str, names: Sequence[str]) -> list[str]:
    """The host names under which a page is reached that binds to `host`.

    Raises:
        DataError: When it binds to every address and is given no name.
    """
    if host in ("0.0.0.0", "::") and not names:
        raise DataError(f"--host {host}: say with --name under which name or address visitors reach it")
    return [name.lower() for name in ("127.0.0.1", "localhost", "::1", host, *names)]


def address_of(host: str, port: int, names: Sequence[str], token: str | None) -> str:
    """What visitors type, or click on."""
    shown = next(iter(names), host)
    shown = f"[{shown}]" if ":" in shown else shown
    return f"http://{shown}:{port}/{f'?token={token}' if token else ''}"


def listen(host: str, port: int) -> socket.socket:
    """Bind to a host and port.

    Raises:
        DataError: When nothing can be bound there.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise DataError(
            f"{host}, port {port}: cannot be listened on ({error.strerror}); take another --port"
        ) from error


def run_app(app: ASGIApp, listening: socket.socket, *, stop: Callable[[], None] = lambda: None) -> None:
    """Serve until it is interrupted.

    Args:
        app: The page, with its guard.
        listening: As from `listen`.
        stop: Called when it is interrupted, before requests that are not answered yet are waited for.
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
