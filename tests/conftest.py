"""Fixtures that many tests share: a small data set, small recipes, and real data where it is available."""

import gantoolkit  # noqa: F401 before torch, for which it sets OpenMP's defaults

# isort: split

import os
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
    """Disable installed plugins."""
    monkeypatch.setenv("GANTOOLKIT_PLUGINS", "0")


@pytest.fixture(autouse=True)
def _no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the same algorithm of convolutions in every process, instead of the fastest."""
    monkeypatch.setenv("GANTOOLKIT_CONVOLUTION", "winograd")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Cache decoded images in a temporary folder."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("GANTOOLKIT_CACHE", str(folder))
    return folder


SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data and golden records beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("the folder ../shared with real data and golden records does not exist")
    return SHARED


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium for all tests of a module."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    try:
        path = find_chromium()
    except NoBrowserError as error:
        pytest.skip(str(error))
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield chromium
        chromium.close()


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A data set of five training images of A and four of B, with two test images of each."""
    return make_dataset(tmp_path / "images")


@pytest.fixture
def tiny() -> Recipe:
    """CycleGAN with networks that run in milliseconds: two epochs of five steps on `dataset`."""
    return make_tiny()


@pytest.fixture
def lively() -> Recipe:
    """`tiny` with dropout, identity terms and a high learning rate, so that every source of randomness is used."""
    return make_lively()


@pytest.fixture
def tiny_pix2pix() -> Recipe:
    generator = {"name": "unet", "width": 4, "depth": 3, "dropout": 0.5}
    return pix2pix().swap({**TINY, "generator": generator})


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process; returns its exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        output, errors = capfd.readouterr()
        return code, output, re.sub(r"\x1b\[[0-9;]*m", "", errors)

    return run
