"""Cache folders of libraries, for users without a home folder that can be written to: those of containers and services."""

import contextlib
import os
import stat
from pathlib import Path

__all__ = ["set_cache_folders"]

_CACHES = {"XDG_CACHE_HOME": "", "TORCH_HOME": "torch", "HF_HOME": "huggingface"}
"""Folders below the user's cache folder, by the variable that moves them. One that exists is used even if it is read-only."""
_SCRATCH = {"MPLCONFIGDIR": (".config", "matplotlib"), "TRITON_CACHE_DIR": (".triton", "cache")}
"""Folders below the home folder that are of no use unless they can be written to."""


def set_cache_folders() -> None:
    """Move the cache folders of torch, the Hugging Face Hub, matplotlib and Triton that cannot be created or written to.

    They move to a folder of the user in the system's temporary folder, by environment variables. Variables that are set stay
    as they are.
    """
    home = _find_home()
    # Without a home folder, some libraries would create a folder named ~.
    cache = Path(os.environ["XDG_CACHE_HOME"]) if os.environ.get("XDG_CACHE_HOME") else home and home / ".cache"
    moves = [
        name
        for name, folder in _CACHES.items()
        if cache is None or not ((cache / folder).exists() or _can_write(cache / folder))
    ]
    moves += [name for name, folder in _SCRATCH.items() if home is None or not _can_write(home.joinpath(*folder))]
    moves = [name for name in moves if not os.environ.get(name)]
    if moves and (root := _make_folder()) is not None:
        for name in moves:
            os.environ[name] = str(root / _CACHES.get(name, name.partition("_")[0].lower()))


def _find_home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:
        return None


def _can_write(folder: Path) -> bool:
    """Whether a folder can be written to, or created."""
    existing = next((path for path in (folder, *folder.parents) if os.path.lexists(path)), folder)
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def _make_folder() -> Path | None:
    """A folder that only this user can write to, always the same one if possible; None if there is no temporary folder."""
    import tempfile  # takes a millisecond to import

    with contextlib.suppress(OSError):
        folder = Path(tempfile.gettempdir()) / f"gantoolkit-cache-{_user()}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        # In a folder of somebody else, weights and compiled kernels could be replaced.
        status = folder.lstat()
        if stat.S_ISDIR(status.st_mode) and status.st_uid == _user() and not stat.S_IMODE(status.st_mode) & 0o022:
            return folder
        return Path(tempfile.mkdtemp(prefix="gantoolkit-cache-"))
    return None


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0
