"""Fixtures that many tests share: a small data set, a small recipe, the real data where they are."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: see gantoolkit.cli.app.main

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from _helpers.chromium import NoBrowserError, find_chromium
from _helpers.small import TINY, make_dataset, make_lively, make_tiny
from hypothesis import settings

from gantoolkit.cli import main
from gantoolkit.recipes import Recipe, pix2pix

settings.register_profile("gantoolkit", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("gantoolkit")
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))


@pytest.fixture(autouse=True)
def _library_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's own tests see its own blocks, whatever else is installed."""
    monkeypatch.setenv("GANTOOLKIT_PLUGINS", "0")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Decoded images are kept in a folder of the test's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("GANTOOLKIT_CACHE", str(folder))
    return folder


SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and golden records beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("the folder ../shared with real data and golden records is not there")
    return SHARED


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium that the tests of a module share."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    try:
        path = find_chromium()
    except NoBrowserError as error:
        pytest.skip(str(error))
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield opened
        opened.close()


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Five images of A, four of B, two and two for tests."""
    return make_dataset(tmp_path / "images")


@pytest.fixture
def tiny() -> Recipe:
    """CycleGAN with networks that take milliseconds: two epochs of five steps on `dataset`."""
    return make_tiny()


@pytest.fixture
def lively() -> Recipe:
    """The same with a dropout layer, identity terms and pools that fill up: everything that draws at random takes part."""
    return make_lively()


@pytest.fixture
def tiny_pix2pix() -> Recipe:
    generator = {"name": "unet", "width": 4, "depth": 3, "dropout": 0.5}
    return pix2pix().swap({**TINY, "generator": generator})


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command; its exit code, what it printed, and what it complained of."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        output, complaint = capfd.readouterr()
        return code, output, re.sub(r"\x1b\[[0-9;]*m", "", complaint)

    return run
