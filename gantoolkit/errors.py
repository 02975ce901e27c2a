"""The errors that gantoolkit raises on purpose: each message says what was wrong, where, and what would be right."""


class GantoolkitError(Exception):
    """A mistake that the person at the keyboard can mend; the command line prints it without a traceback."""


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
