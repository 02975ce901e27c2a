"""The errors that gantoolkit raises on purpose, and the parts that their messages share.

Each message says what was wrong, where, and what would be right.
"""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_LONGEST = 2000


class GantoolkitError(Exception):
    """A mistake that the person at the keyboard can mend; the command line prints it without a traceback.

    Its message is one line of at most 2,000 characters, whatever it quotes: what a stranger's file says may be long, and may
    hold line breaks and the codes that make a terminal do things.
    """

    def __str__(self) -> str:
        shown = "".join(sign if sign.isprintable() else _escape(sign) for sign in super().__str__())
        if len(shown) <= _LONGEST:
            return shown
        return f"{shown[: _LONGEST // 2]} … {shown[3 - _LONGEST // 2 :]}"  # what would be right is said at the end


def _escape(sign: str) -> str:
    return " " if sign.isspace() else ascii(sign)[1:-1]


class PluginError(GantoolkitError):
    """A block that is not known, offered twice, or cannot be loaded."""


class RecipeError(GantoolkitError):
    """A recipe that cannot work: a field that does not exist, a value out of range, blocks that do not fit together."""


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
