"""Connect to the Hub: endpoint, token, and error messages of one sentence."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from gantoolkit.errors import HubError, first_line, requires_extra
from gantoolkit.hub.names import RepositoryName

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo

__all__ = [
    "TIMEOUT_SECONDS",
    "UnreachableHubError",
    "connect",
    "explain_errors",
    "fetch_info",
    "find_token",
    "require_token",
]

TIMEOUT_SECONDS = 10.0
"""Timeout for the start of a response."""

_HUB = "https://huggingface.co"


class UnreachableHubError(HubError):
    """The Hub is not reachable."""


def connect(command: str) -> "HfApi":
    """Create a client for the Hub at `HF_ENDPOINT`, by default huggingface.co.

    Args:
        command: The command that needs the Hub, for messages.

    Raises:
        HubError: If huggingface_hub is not installed, or `HF_ENDPOINT` is not a URL.
    """
    with requires_extra("hub", command, HubError):
        from huggingface_hub import HfApi
    # huggingface_hub reads the environment only when it is imported, which may have been earlier.
    endpoint = (os.environ.get("HF_ENDPOINT") or _HUB).rstrip("/")
    if not endpoint.startswith(("https://", "http://")):
        raise HubError(f"{command}: HF_ENDPOINT is {endpoint!r}, which is not a URL; the Hub is at {_HUB}")
    return HfApi(endpoint=endpoint, library_name="gantoolkit")


def find_token() -> str | None:
    """The token from `HF_TOKEN` or the stored login; None if there is none.

    Raises:
        HubError: If the token is malformed; the message does not quote it.
    """
    from huggingface_hub import get_token

    token = get_token()
    # Checked here because the errors of other packages would quote a token that cannot be sent.
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise HubError("the token from HF_TOKEN or the login contains invalid characters; copy it again")
    return token


def require_token(command: str) -> str:
    """The token, as `find_token`.

    Raises:
        HubError: If there is no token.
    """
    token = find_token()
    if not token:
        raise HubError(
            f"{command}: requires a token with write access from {_HUB}/settings/tokens: set HF_TOKEN, or log in with: "
            "hf auth login"
        )
    return token


def fetch_info(api: "HfApi", name: RepositoryName, token: str | None) -> "ModelInfo":
    """Fetch the description and file list of a repository. As the first request of a command, it has a short timeout."""
    return api.model_info(
        name.repository, revision=name.revision, files_metadata=True, timeout=TIMEOUT_SECONDS, token=token or False
    )


@contextlib.contextmanager
def explain_errors(api: "HfApi", name: RepositoryName, action: str) -> Iterator[None]:
    """Turn the errors of huggingface_hub into a `HubError` of one sentence, which never contains the token.

    Args:
        api: The client.
        name: The repository.
        action: The start of the message, such as `push` or `pull`.

    Raises:
        HubError: Instead of the errors of huggingface_hub.
        UnreachableHubError: If there is no network, or the Hub does not respond.
    """
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    # The base class of all HTTP errors, from httpx or its successor.
    http_error: type[Exception] = HfHubHTTPError.__bases__[0]
    try:
        with _silence():
            yield
    except (
        http_error,
        LocalEntryNotFoundError,
        TimeoutError,
        ConnectionError,
        ValueError,
        KeyError,
        TypeError,
        RuntimeError,
    ) as error:
        raise _describe(api, name, action, error, http_error) from error


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Silence the log messages of huggingface_hub, since we report errors, and its progress bars outside of a terminal."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    hide_bars = not (
        sys.stderr.isatty() or are_progress_bars_disabled() or "HF_HUB_DISABLE_PROGRESS_BARS" in os.environ
    )
    if hide_bars:
        disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if hide_bars:
            enable_progress_bars()


def _describe(
    api: "HfApi", name: RepositoryName, action: str, error: BaseException, http_error: type[Exception]
) -> HubError:
    from huggingface_hub import errors

    if isinstance(error, RuntimeError) and error.__cause__ is not None:  # raised by an upload thread
        return _describe(api, name, action, error.__cause__, http_error)
    match error:
        case errors.RevisionNotFoundError():
            return HubError(f"{action}: {name.repository} has no revision '{name.revision}'")
        case errors.GatedRepoError():
            return HubError(f"{action}: {name.repository} is gated; request access at {api.endpoint}/{name.repository}")
        case errors.RepositoryNotFoundError():
            return HubError(
                f"{action}: repository {name.repository} does not exist at {api.endpoint}, or it is private and requires a "
                "token with read access (HF_TOKEN, or hf auth login)"
            )
        case errors.HfHubHTTPError():
            return HubError(f"{action}: {_describe_status(api, name, error.response.status_code, error)}")
        case errors.LocalEntryNotFoundError() | errors.OfflineModeIsEnabled() | TimeoutError() | ConnectionError():
            is_unreachable = True
        case _:
            is_unreachable = isinstance(error, http_error)
    if is_unreachable:
        return UnreachableHubError(
            f"{action}: {api.endpoint} cannot be reached ({_reason(error)}); check the network connection"
        )
    return HubError(f"{action}: {api.endpoint} sent an invalid response for {name} ({first_line(error)})")


def _describe_status(api: "HfApi", name: RepositoryName, status: int, error: BaseException) -> str:
    if status == 401:
        return f"{api.endpoint} rejected the token (401); create one at {api.endpoint}/settings/tokens and set HF_TOKEN to it"
    if status == 403:
        return (
            f"the token has no write access to {name.repository} (403); use a token with write access, and your own name or "
            "that of your organization as owner"
        )
    if status == 429:
        return f"{api.endpoint} received too many requests (429); try again in a few minutes"
    if status >= 500:
        return f"{api.endpoint} has a server error ({status}); try again later"
    return f"{api.endpoint} responded with status {status} for {name}: {first_line(error)}"


def _reason(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:  # the first cause is the most specific
        text = f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__
        if "Name or service not known" in text or "name resolution" in text:
            return "the server name could not be resolved"
        if "Connection refused" in text:
            return "connection refused"
        if "offline mode" in text:
            return "HF_HUB_OFFLINE is set"
        if "Timeout" in type(cause).__name__:
            return "timeout"
        cause = cause.__cause__ or cause.__context__
    return first_line(error)
