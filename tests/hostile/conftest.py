"""What strangers' files have in common here: each is refused in one sentence."""

from collections.abc import Callable
from typing import Any

import pytest

from gantoolkit.errors import GantoolkitError


@pytest.fixture
def refused() -> Callable[..., str]:
    """Call a reader that has to refuse; the sentence."""

    def call(read: Callable[..., Any], *arguments: Any, **options: Any) -> str:
        with pytest.raises(GantoolkitError) as error:
            read(*arguments, **options)
        sentence = str(error.value)
        assert sentence.isprintable(), f"more than one line, or codes for a terminal: {sentence!r}"
        assert 0 < len(sentence) <= 2000
        return sentence

    return call
