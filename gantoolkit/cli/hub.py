"""`gantoolkit card`, `gantoolkit push` and `gantoolkit pull`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

__all__ = ["card", "pull", "push"]


def card(run: Path, /, *, out: Path | None = None, license: str | None = None, scores: Path | None = None) -> int:
    """Write the card that `gantoolkit push` would publish: what the run's own files say of it.

    Parameters
    ----------
    run
        A run's folder.
    out
        The file to write; without it the card is printed.
    license
        The Hub's name for one: apache-2.0, cc-by-nc-4.0, other.
    scores
        The folder that gantoolkit evaluate wrote; by default the run's own folder scores, if there is one.
    """
    from gantoolkit.errors import HubError
    from gantoolkit.files.text import write_text
    from gantoolkit.hub import make_card
    from gantoolkit.run import Run

    text = make_card(Run.open(run), license=license, scores=scores).text
    if out is None:
        print(text, end="")
        return 0
    write_text(out, text, HubError)
    print(f"wrote {out}")
    return 0


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
    """Publish a run's generators on the Hugging Face Hub, with its recipe, a card and its newest samples.

    The token is that of HF_TOKEN, or of `hf auth login`. Optimizers, logs and the place of the data stay here.

    Parameters
    ----------
    run
        A run's folder.
    repository
        owner/name; it is made if it is not there.
    private
        Make it private; one that is there already stays as it is.
    license
        The Hub's name for one, for the card: apache-2.0, cc-by-nc-4.0, other.
    scores
        The folder that gantoolkit evaluate wrote, for the card; by default the run's own folder scores, if there is one.
    message
        Of the commit.
    """
    from gantoolkit.hub import push
    from gantoolkit.run import Run

    made = push(Run.open(run), repository, private=private, license=license, scores=scores, message=message)
    for field in made.shortened:
        print(f"{field}: held a path of this machine; the last part of it was pushed")
    print(f"pushed {', '.join(made.files)}")
    print(f"{made.url} at commit {made.commit}")
    return 0


def pull(repository: str, /, *, out: Path) -> int:
    """Fetch generators that were published with `gantoolkit push`; each is there once it has been found whole.

    Parameters
    ----------
    repository
        owner/name, or owner/name@revision: a branch, a tag or a commit.
    out
        The folder to make; gantoolkit translate and show take it as they take a run's.
    """
    from gantoolkit.hub import pull

    made = pull(repository, out)
    print(f"pulled {', '.join(made.files)} of commit {made.commit}")
    direction = next(Path(file).stem for file in made.files if file.startswith("generators/"))
    print(f"use it with: gantoolkit translate {made.folder} --direction {direction} IMAGES --out DIR")
    return 0
