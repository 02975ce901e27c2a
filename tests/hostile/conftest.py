"""Shared fixture for untrusted files: each is rejected with a one-sentence error."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gantoolkit.errors import GantoolkitError


@pytest.fixture
def error_message() -> Callable[..., str]:
    """A function that calls a reader, checks that it raises a `GantoolkitError`, and returns the message."""

    def call(read: Callable[..., Any], *arguments: Any, **options: Any) -> str:
        with pytest.raises(GantoolkitError) as error:
            read(*arguments, **options)
        message = str(error.value)
        assert message.isprintable(), f"more than one line, or terminal control codes: {message!r}"
        assert 0 < len(message) <= 2000
        return message

    return call


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder are slow: each tries hundreds of files."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.slow(reason="tries many hostile files"))
