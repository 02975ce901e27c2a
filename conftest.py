"""Runs every block of code in README and docs, and every doctest in the package.

Every page runs in its own folder, with small images in place of the data sets that it mentions. Shell blocks use the commands
of tests/_helpers/commands: `gantoolkit` with small networks and short runs, `torchrun` and SLURM on this machine, and others
without network access. A local server takes the place of the Hugging Face Hub.
"""

import contextlib
import doctest
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser
from sybil.parsers.rest import DocTestParser

ROOT = Path(__file__).parent
COMMANDS = ROOT / "tests" / "_helpers" / "commands"
SLOW_PAGES = {
    "docs/baselines.md": "trains several systems",
    "docs/performance.md": "runs benchmarks",
    "docs/plugins/trust.md": "installs packages",
    "docs/tutorials/ablations.md": "trains several runs",
    "docs/tutorials/depth.md": "trains two runs",
    "docs/tutorials/export.md": "trains a run and exports it in three formats",
    "docs/tutorials/large-images.md": "trains a run and translates large images",
    "docs/tutorials/many-images.md": "trains a run and translates many images",
    "docs/tutorials/own-images.md": "trains several runs",
    "docs/tutorials/paper-tables.md": "trains several runs and a segmenter",
    "docs/tutorials/pix2pix.md": "trains several runs",
    "docs/tutorials/reproduce-a-table.md": "trains several runs",
    "docs/tutorials/score.md": "trains runs and a segmenter",
    "docs/tutorials/serve.md": "trains two runs and serves them",
    "docs/tutorials/several-processes.md": "starts several processes",
    "docs/tutorials/share.md": "trains a run",
    "docs/tutorials/speed.md": "measures a run",
    "docs/tutorials/study.md": "trains two runs and serves a study",
    "docs/tutorials/style-transfer.md": "optimizes images",
    "docs/tutorials/write-a-plugin.md": "installs a package",
}
"""Pages whose blocks run in `make test-slow`, with the reason."""
sys.path.insert(0, str(ROOT / "tests"))  # for _helpers


def set_up(namespace: dict[str, Any]) -> None:
    """Change to a new folder with small data sets, with the commands of tests/_helpers/commands first on the path."""
    from _helpers.hub_server import TOKEN, HubServer
    from huggingface_hub import constants

    stack = namespace["_cleanup"] = contextlib.ExitStack()
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gantoolkit-docs-")))
    hub = stack.enter_context(HubServer())
    make_files(folder)
    variables = {
        "PATH": f"{COMMANDS}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{folder / 'gantoolkit-stripes' / 'src'}{os.pathsep}{folder / 'site'}",
        "GANTOOLKIT_CACHE": str(folder / "cache"),
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "DOCS_PATH": os.environ["PATH"],
        "DOCS_PYTHON": sys.executable,
        "DOCS_SITE": str(folder / "site"),
    }
    stack.enter_context(mock.patch.dict(os.environ, variables))
    # huggingface_hub may have read its environment already.
    stack.enter_context(mock.patch.object(constants, "HF_HUB_CACHE", str(folder / "hf" / "hub")))
    stack.enter_context(mock.patch.object(constants, "HF_HUB_DISABLE_XET", True))
    stack.enter_context(contextlib.chdir(folder))
    stack.callback(stop_server, folder)


def tear_down(namespace: dict[str, Any]) -> None:
    namespace["_cleanup"].close()


def make_files(folder: Path) -> None:
    """Create the data sets, images, video and weights that the pages mention."""
    import torch
    from _helpers.films import make_video
    from _helpers.small import make_dataset, make_image, official_resnet

    make_dataset(folder / "data" / "horse2zebra", count_A=2, count_B=2, test=1)
    make_dataset(folder / "data" / "pairs", count_A=2, count_B=2, test=0)
    make_dataset(folder / "data" / "cityscapes", count_A=3, count_B=3, test=3)
    shutil.make_archive(str(folder / "public"), "zip", folder / "data" / "horse2zebra")
    (folder / "photographs").mkdir()
    make_image(1).save(folder / "photographs" / "one.jpg")
    make_image(2).save(folder / "horse.jpg")
    make_video(folder / "film.mp4", frames=5)
    torch.save(official_resnet(2, 2, False, True, ""), folder / "latest_net_G_A.pth")


def stop_server(folder: Path) -> None:
    """Stop the server that a page has started with `gantoolkit serve`, if any."""
    if (folder / "server").is_file():
        os.kill(int((folder / "server").read_text().split()[1]), signal.SIGTERM)


def run_shell(example: Example) -> None:
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", example.parsed], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"exit code {result.returncode}\n{result.stdout}\n{result.stderr}"
    assert "Traceback" not in result.stderr, result.stderr


def check_recipe(example: Example) -> None:
    from gantoolkit.recipes import Recipe

    Recipe.from_toml(example.parsed).check()


pages = Sybil(
    parsers=[PythonCodeBlockParser(), CodeBlockParser("bash", run_shell), CodeBlockParser("toml", check_recipe)],
    patterns=["README.md", "CONTRIBUTING.md", "docs/*.md", "docs/**/*.md"],
    path=str(ROOT),
    setup=set_up,
    teardown=tear_down,
)
docstrings = Sybil(
    parsers=[DocTestParser(optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL)],
    patterns=["gantoolkit/*.py", "gantoolkit/**/*.py"],
    path=str(ROOT),
)
pytest_collect_file = (pages + docstrings).pytest()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the items of slow pages. Every `slow` marker must have a reason."""
    for item in items:
        page = item.path.relative_to(ROOT).as_posix() if item.path.is_relative_to(ROOT) else ""
        if page in SLOW_PAGES:
            item.add_marker(pytest.mark.slow(reason=SLOW_PAGES[page]))
        for marker in item.iter_markers("slow"):
            if not marker.kwargs.get("reason"):
                raise pytest.UsageError(f"{item.nodeid}: mark it as slow with a reason")
