"""`gantoolkit card`, `gantoolkit push` and `gantoolkit pull`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gantoolkit.cli.exit_codes import SUCCESS

__all__ = ["card", "pull", "push"]


def card(run: Path, /, *, out: Path | None = None, license: str | None = None, scores: Path | None = None) -> int:
    """Write the model card that `gantoolkit push` would publish, from the run's own files.

    Parameters
    ----------
    run
        A run's folder.
    out
        The file to write. By default, the card is printed.
    license
        The license by its name on the Hub: apache-2.0, cc-by-nc-4.0, other.
    scores
        A folder written by `gantoolkit evaluate`. Default: the folder scores of the run, if there is one.
    """
    from gantoolkit.errors import HubError
    from gantoolkit.files.text import write_text
    from gantoolkit.hub import make_card
    from gantoolkit.run import Run

    text = make_card(Run.open(run), license=license, scores=scores).text
    if out is None:
        print(text, end="")
        return SUCCESS
    write_text(out, text, HubError)
    print(f"wrote {out}")
    return SUCCESS


def push(
    run: Path,
    repository: str,
    /,
    *,
    private: Annotated[bool, Parameter(negative=())] = False,
    license: str | None = None,
    scores: Path | None = None,
    message: str = "",
) -> int:
    """Publish a run's generators on the Hugging Face Hub, with its recipe, a model card and its newest samples.

    The token comes from HF_TOKEN or `hf auth login`. Optimizers, logs and the path of the data are not published.

    Parameters
    ----------
    run
        A run's folder.
    repository
        owner/name; created if it does not exist.
    private
        Create a private repository. An existing one is not changed.
    license
        The license for the card, by its name on the Hub: apache-2.0, cc-by-nc-4.0, other.
    scores
        A folder written by `gantoolkit evaluate`, for the card. Default: the folder scores of the run, if there is one.
    message
        The commit message.
    """
    from gantoolkit.hub import push
    from gantoolkit.run import Run

    result = push(Run.open(run), repository, private=private, license=license, scores=scores, message=message)
    for field in result.shortened:
        print(f"{field}: held a path of this machine; the last part of it was pushed")
    print(f"pushed {', '.join(result.files)}")
    print(f"{result.url} at commit {result.commit}")
    return SUCCESS


def pull(repository: str, /, *, out: Path) -> int:
    """Download generators that were published with `gantoolkit push`, and verify their checksums.

    Parameters
    ----------
    repository
        owner/name, or owner/name@revision: a branch, a tag or a commit.
    out
        The folder to create. `gantoolkit translate` and `gantoolkit show` accept it like a run's folder.
    """
    from gantoolkit.hub import pull

    result = pull(repository, out)
    print(f"pulled {', '.join(result.files)} of commit {result.commit}")
    direction = next(Path(file).stem for file in result.files if file.startswith("generators/"))
    print(f"use it with: gantoolkit translate {result.folder} --direction {direction} IMAGES --out DIR")
    return SUCCESS
