"""The errors that gantoolkit raises on purpose, and the parts that their messages share.

Each message says what was wrong, where, and what would be right.
"""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_MAX_LENGTH = 2000


class GantoolkitError(Exception):
    """An error that the user can fix; the command line prints it without a traceback.

    Its message is one line of at most 2,000 characters. It may quote untrusted files, so line breaks and terminal escape codes
    are escaped.
    """

    def __str__(self) -> str:
        text = "".join(character if character.isprintable() else _escape(character) for character in super().__str__())
        if len(text) <= _MAX_LENGTH:
            return text
        return f"{text[: _MAX_LENGTH // 2]} … {text[3 - _MAX_LENGTH // 2 :]}"  # the end says what would be right


def _escape(character: str) -> str:
    return " " if character.isspace() else ascii(character)[1:-1]


class PluginError(GantoolkitError):
    """A block that is unknown, offered twice, or cannot be loaded."""


class RecipeError(GantoolkitError):
    """A recipe that cannot work: an unknown field, a value out of range, blocks that do not fit together."""


class DataError(GantoolkitError):
    """Images or folders that cannot be used."""


class CheckpointError(GantoolkitError):
    """A run or a file of weights that cannot be read, written or continued."""


class TrainingError(GantoolkitError):
    """A training run that had to stop, with the reason."""


class ExportError(GantoolkitError):
    """A network that cannot be exported, or an exported file that does not compute what the network does."""


class HubError(GantoolkitError):
    """A repository on the Hugging Face Hub that cannot be reached, read or written."""


def closest_match(word: str, known: Iterable[str]) -> str | None:
    """The known word that a misspelled word was probably meant to be, or None."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0.55)), None)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint to append to a sentence, such as ` Did you mean 'resnet'?`; empty if no known word is close."""
    match = closest_match(word, known)
    return f" Did you mean '{match}'?" if match else ""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its type if it has no message."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def count_of(number: int, noun: str) -> str:
    """A number with its noun: `1 file`, `2,000 files`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@contextmanager
def requires_extra(extra: str, feature: str, error: type[GantoolkitError]) -> Iterator[None]:
    """Turn a failed import inside the block into `error`, which says how to install what is missing.

    Args:
        extra: The optional dependency group of gantoolkit.
        feature: The feature that needs it; the start of the sentence.
        error: The type to raise.
    """
    try:
        yield
    except ImportError as missing:
        raise error(f"{feature} needs the extra `{extra}`: pip install gantoolkit[{extra}] ({missing})") from missing
