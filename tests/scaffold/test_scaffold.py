"""Distributions of `plugins new` can be installed, and pass their tests and the conformance checks unchanged."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gantoolkit.cli import main
from gantoolkit.errors import PluginError
from gantoolkit.plugins import REGISTRIES
from gantoolkit.scaffold import write_distribution

pytestmark = pytest.mark.slow(reason="installs packages")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path]]:
    """Install one distribution of each kind into a folder; returns the folder, and the source folder of each kind."""
    folder = tmp_path_factory.mktemp("scaffold")
    sources = {kind: write_distribution(f"gantoolkit-try-{kind}", kind, folder).folder for kind in REGISTRIES}
    site = folder / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*command, "--target", str(site), *map(str, sources.values())], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return site, sources


def run(site: Path, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site), "NO_COLOR": "1"}
    environment.pop("GANTOOLKIT_PLUGINS", None)
    return subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, check=False, cwd=cwd, env=environment
    )


def test_every_kind_passes_its_tests(installed: tuple[Path, dict[str, Path]]) -> None:
    site, sources = installed
    tests = [str(source / "tests") for source in sources.values()]
    done = run(site, "pytest", "-q", "-rf", "-p", "no:cacheprovider", *tests, cwd=site.parent)
    assert done.returncode == 0, done.stdout[-6000:]
    assert "failed" not in done.stdout


def test_every_kind_is_listed_and_passes_the_check_command(installed: tuple[Path, dict[str, Path]]) -> None:
    site, _ = installed
    done = run(site, "gantoolkit", "plugins", cwd=site.parent)
    for kind in REGISTRIES:
        (line,) = [line for line in done.stdout.splitlines() if f"gantoolkit-try-{kind.replace('_', '-')} " in line]
        assert line.split()[-2:] == [f"try_{kind}", "ok"]
    done = run(site, "gantoolkit", "check", "try_schedulers", cwd=site.parent)
    assert done.returncode == 0
    assert done.stdout.endswith("no rule is broken\n")


def test_written_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "new", "gantoolkit-stripes", "--kind", "generators", "--out", str(tmp_path)]) == 0
    folder = tmp_path / "gantoolkit-stripes"
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        "LICENSE",
        "README.md",
        "pyproject.toml",
        "src/gantoolkit_stripes/__init__.py",
        "src/gantoolkit_stripes/py.typed",
        "src/gantoolkit_stripes/stripes.py",
        "tests/test_stripes.py",
    ]
    assert "pip install" in capsys.readouterr().out
    assert '@generator_checks("stripes")' in (folder / "tests" / "test_stripes.py").read_text()


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("gantoolkit-stripes", "generator", "unknown kind 'generator'. Did you mean 'generators'?"),
        ("gantoolkit-resnet", "generators", "gantoolkit already provides 'resnet' in generators"),
        ("gantoolkit-", "generators", "is not a valid distribution name"),
        ("gantoolkit-2d", "generators", "contains no valid block name"),
        ("../escape", "generators", "is not a valid distribution name"),
        ("existing", "generators", "exists already"),
    ],
)
def test_invalid_names_and_kinds_are_rejected(name: str, kind: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "existing").mkdir()
    with pytest.raises(PluginError, match=message):
        write_distribution(name, kind, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["existing"]


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PluginError, match="cannot be written"):
        write_distribution("gantoolkit-stripes", "generators", tmp_path / "file")
