"""What `plugins new` writes installs, and passes its tests and the kit, as it is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gantoolkit.cli import main
from gantoolkit.errors import PluginError
from gantoolkit.plugins import REGISTRIES
from gantoolkit.scaffold import write_distribution


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path]]:
    """One distribution for each kind, built and installed into a folder; the folder, and each one's source."""
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


def test_every_kind_passes_its_own_tests_unchanged(installed: tuple[Path, dict[str, Path]]) -> None:
    site, sources = installed
    tests = [str(source / "tests") for source in sources.values()]
    done = run(site, "pytest", "-q", "-rf", "-p", "no:cacheprovider", *tests, cwd=site.parent)
    assert done.returncode == 0, done.stdout[-6000:]
    assert "failed" not in done.stdout


def test_every_kind_is_known_and_passes_the_kit_on_the_command_line(installed: tuple[Path, dict[str, Path]]) -> None:
    site, _ = installed
    done = run(site, "gantoolkit", "plugins", cwd=site.parent)
    for kind in REGISTRIES:
        (line,) = [line for line in done.stdout.splitlines() if f"gantoolkit-try-{kind.replace('_', '-')} " in line]
        assert line.split()[-2:] == [f"try_{kind}", "ok"]
    done = run(site, "gantoolkit", "check", "try_schedulers", cwd=site.parent)
    assert done.returncode == 0
    assert done.stdout.endswith("no rule is broken\n")


def test_what_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
        ("gantoolkit-stripes", "generator", "no kind 'generator'. Did you mean 'generators'?"),
        ("gantoolkit-resnet", "generators", "generators has a 'resnet' from gantoolkit already"),
        ("gantoolkit-", "generators", "is no name for a distribution"),
        ("gantoolkit-2d", "generators", "leaves no name for the block"),
        ("../escape", "generators", "is no name for a distribution"),
        ("there", "generators", "is there already"),
    ],
)
def test_what_will_not_do_is_refused(name: str, kind: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(PluginError, match=message):
        write_distribution(name, kind, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PluginError, match="cannot be written"):
        write_distribution("gantoolkit-stripes", "generators", tmp_path / "file")
