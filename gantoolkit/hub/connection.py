"""The way to the Hub: where it is, who asks, and in one sentence why something could not be done there."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from gantoolkit.errors import HubError, requires_extra
from gantoolkit.hub.names import RepositoryName

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo

__all__ = ["SECONDS", "UnreachableHubError", "connect", "explain", "find_token", "read_token", "survey"]

SECONDS = 10.0
"""Within which the Hub has to begin to answer."""

_HUB = "https://huggingface.co"


class UnreachableHubError(HubError):
    """The Hub does not answer."""


def connect(command: str) -> "HfApi":
    """The Hub that `HF_ENDPOINT` names, or else huggingface.co.

    Args:
        command: What needs it, for the message.

    Raises:
        HubError: When the package is not installed, or `HF_ENDPOINT` is no address.
    """
    with requires_extra("hub", command, HubError):
        from huggingface_hub import HfApi
    # Said here, since the package reads the environment only when it is imported, which may have been long ago.
    endpoint = (os.environ.get("HF_ENDPOINT") or _HUB).rstrip("/")
    if not endpoint.startswith(("https://", "http://")):
        raise HubError(f"{command}: HF_ENDPOINT is {endpoint!r}, which is no address; the Hub's is {_HUB}")
    return HfApi(endpoint=endpoint, library_name="gantoolkit")


def find_token() -> str | None:
    """The token of `HF_TOKEN`, or of who has logged in, if there is one.

    Raises:
        HubError: When it cannot be one; the message does not quote it.
    """
    from huggingface_hub import get_token

    token = get_token()
    if token and not (
        token.isascii() and token.isprintable() and " " not in token
    ):  # what cannot be sent is quoted by others
        raise HubError("the token of HF_TOKEN, or of the login, holds signs that no token has; copy it anew")
    return token


def read_token(command: str) -> str:
    """The token, where none will not do.

    Raises:
        HubError: When there is none.
    """
    token = find_token()
    if not token:
        raise HubError(
            f"{command}: needs a token with the right to write, from {_HUB}/settings/tokens: set HF_TOKEN, or log in with: "
            "hf auth login"
        )
    return token


def survey(api: "HfApi", name: RepositoryName, token: str | None) -> "ModelInfo":
    """What a repository holds; the first question of all, which waits for seconds, not for minutes."""
    return api.model_info(
        name.repository, revision=name.revision, files_metadata=True, timeout=SECONDS, token=token or False
    )


@contextlib.contextmanager
def explain(api: "HfApi", name: RepositoryName, doing: str) -> Iterator[None]:
    """Say in one sentence what has gone wrong on the way or at the other end; no token is in it.

    Args:
        doing: `push` or `pull`, say.

    Raises:
        HubError: In place of what huggingface_hub raises.
        UnreachableHubError: When there is no network, or the Hub does not answer.
    """
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    # Of httpx or its successor: all that goes wrong on the web is one.
    web: type[Exception] = HfHubHTTPError.__bases__[0]
    try:
        with _quietly():
            yield
    except (
        web,
        LocalEntryNotFoundError,
        TimeoutError,
        ConnectionError,
        ValueError,
        KeyError,
        TypeError,
        RuntimeError,
    ) as error:
        raise _describe(api, name, doing, error, web) from error


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Its log tells of retries and of tokens that might be set; what goes wrong in the end is said once, by us.

    Its bars are for a terminal alone.
    """
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    hides_bars = not (
        sys.stderr.isatty() or are_progress_bars_disabled() or "HF_HUB_DISABLE_PROGRESS_BARS" in os.environ
    )
    if hides_bars:
        disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if hides_bars:
            enable_progress_bars()


def _describe(api: "HfApi", name: RepositoryName, doing: str, error: BaseException, web: type[Exception]) -> HubError:
    from huggingface_hub import errors

    if isinstance(error, RuntimeError) and error.__cause__ is not None:  # that of a thread which uploads a file
        return _describe(api, name, doing, error.__cause__, web)
    match error:
        case errors.RevisionNotFoundError():
            return HubError(f"{doing}: {name.repository} has no revision '{name.revision}'")
        case errors.GatedRepoError():
            return HubError(f"{doing}: {name.repository} is gated: ask for access at {api.endpoint}/{name.repository}")
        case errors.RepositoryNotFoundError():
            return HubError(
                f"{doing}: there is no repository {name.repository} at {api.endpoint}, or it is private and no token was given "
                "that may read it (HF_TOKEN, or hf auth login)"
            )
        case errors.HfHubHTTPError():
            return HubError(f"{doing}: {_describe_answer(api, name, error.response.status_code, error)}")
        case errors.LocalEntryNotFoundError() | errors.OfflineModeIsEnabled() | TimeoutError() | ConnectionError():
            is_unreachable = True
        case _:
            is_unreachable = isinstance(error, web)
    if is_unreachable:
        return UnreachableHubError(f"{doing}: {api.endpoint} cannot be reached ({_reason(error)}); is there a network?")
    return HubError(f"{doing}: {api.endpoint} answers for {name} what no Hub does ({_first_line(error)})")


def _describe_answer(api: "HfApi", name: RepositoryName, status: int, error: BaseException) -> str:
    if status == 401:
        return f"{api.endpoint} refuses the token (401); make one at {api.endpoint}/settings/tokens, and set HF_TOKEN to it"
    if status == 403:
        return (
            f"the token may not do that in {name.repository} (403); it needs the right to write there, and the owner's name "
            "has to be yours or your organization's"
        )
    if status == 429:
        return f"{api.endpoint} has been asked too often (429); try again in some minutes"
    if status >= 500:
        return f"{api.endpoint} is out of order ({status}); try again later"
    return f"{api.endpoint} answers {status} for {name}: {_first_line(error)}"


def _reason(error: BaseException) -> str:
    cause: BaseException | None = error
    text = ""
    while cause is not None:  # the first cause knows best
        text = f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__
        if "Name or service not known" in text or "name resolution" in text:
            return "the name of the server cannot be resolved"
        if "Connection refused" in text:
            return "connection refused"
        if "offline mode" in text:
            return "HF_HUB_OFFLINE is set"
        if "Timeout" in type(cause).__name__:
            return "no answer in time"
        cause = cause.__cause__ or cause.__context__
    return _first_line(error) or text


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
