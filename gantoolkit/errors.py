"""The errors that gantoolkit raises on purpose: each message says what was wrong, where, and what would be right."""

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
