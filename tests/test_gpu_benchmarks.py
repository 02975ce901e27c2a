"""`python -m benchmarks.gpu`: its stages, and the bundle for a machine without a network.

Stages run here as small modules of the standard library. In the slow tests the bundle is made, and the command runs with it in
an environment that has only what such a machine has, on a stand-in for CUDA.
"""

import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import venv
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from _helpers.patience import PATIENCE, wait_for
from packaging.requirements import Requirement

from benchmarks.gpu import bundle
from benchmarks.gpu.device_tests import list_test_files
from benchmarks.gpu.results import format_table, read_results
from benchmarks.gpu.runner import Runner
from benchmarks.gpu.stages import STAGES, Stage

ROOT = Path(__file__).parents[1]


def timeit(name: str, statement: str, *, limit: int = 60, **options: object) -> Stage:
    """A stage that executes a statement once."""
    return Stage(name, ("timeit", "-n", "1", "-r", "1", statement), limit, **options)  # type: ignore[arg-type]


def record(value: int) -> str:
    return f"from benchmarks.rows import record; record({{'value': {value}}}, 'value {value}')"


def run_stages(out: Path, *stages: Stage, seconds: float = 100, **options: Path) -> Runner:
    runner = Runner(out, options, seconds=seconds, jobs=2)
    runner.run(stages)
    return runner


def test_stages_are_modules_with_unique_names() -> None:
    assert len({stage.name for stage in STAGES}) == len(STAGES)
    for stage in STAGES:
        assert importlib.util.find_spec(stage.command[0]) is not None
        assert set(stage.needs) <= set(stage.takes) <= {"golden", "peer"}
    names = [stage.name for stage in STAGES]
    checks = [index for index, name in enumerate(names) if name.startswith("check-")]
    assert names[:2] == ["machine", "tests"]
    assert checks == list(range(2, 2 + len(checks))), "correctness comes before speed"


def test_a_failing_stage_does_not_stop_the_others(tmp_path: Path) -> None:
    runner = run_stages(
        tmp_path,
        timeit("first", record(1)),
        timeit("broken", f"{record(2)}; raise ValueError('an example')"),
        timeit("killed", "import os; os.kill(os.getpid(), 9)"),
        timeit("last", record(3)),
    )
    results = read_results(runner.rows)
    assert {name: result.status for name, result in results.items()} == {
        "first": "passed",
        "broken": "failed",
        "killed": "failed",
        "last": "passed",
    }
    assert [result.summary for result in results.values()] == ["value 1", "value 2", "exit code -9", "value 3"]
    log = runner.log.read_text()
    assert "broken: Traceback (most recent call last):" in log
    assert "broken: ValueError: an example" in log
    assert {path.name for path in tmp_path.iterdir()} == {"results.jsonl", "log.txt"}


def test_an_exception_is_recorded_with_its_traceback(tmp_path: Path) -> None:
    runner = run_stages(tmp_path, Stage("missing", ("no_such_module",), 60))
    result = read_results(runner.rows)["missing"]
    assert (result.status, result.summary) == ("failed", "ImportError: No module named no_such_module")
    assert "Traceback" in result.rows[-1]["error"]


@pytest.mark.slow(reason="waits for a limit that a loaded machine reaches no earlier than a row: 20 s")
def test_a_stage_is_killed_at_its_limit_and_keeps_its_rows(tmp_path: Path) -> None:
    """With the processes that it started."""
    child = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    stage = timeit("slow", f"{child}; {record(5)}; import time; time.sleep(600)", limit=20)
    result = read_results(run_stages(tmp_path, stage).rows)["slow"]
    assert (result.status, result.summary) == ("over its limit", "value 5")


def test_no_stage_starts_when_the_time_is_over(tmp_path: Path) -> None:
    stages = [timeit("slow", "import time; time.sleep(600)", limit=600), timeit("next", record(1))]
    runner = run_stages(tmp_path, *stages, seconds=7)
    results = read_results(runner.rows)
    assert results["slow"].status == "interrupted"
    assert not results["slow"].is_complete
    assert runner.omitted == {"next": "no time was left"}


def test_stages_side_by_side_all_run(tmp_path: Path) -> None:
    stages = [timeit(str(number), record(number), side_by_side=True) for number in range(4)]
    results = read_results(run_stages(tmp_path, *stages).rows)
    assert {name: result.summary for name, result in results.items()} == {str(n): f"value {n}" for n in range(4)}


def test_options_are_passed_to_the_stages_that_take_them(tmp_path: Path) -> None:
    echo = Stage("echo", ("json.tool",), 60, takes=("peer",))
    needy = Stage("needy", ("timeit",), 60, takes=("golden",), needs=("golden",))
    runner = run_stages(tmp_path, echo, needy, peer=tmp_path)
    assert f"json.tool --peer {tmp_path}" in runner.log.read_text()
    assert runner.omitted == {"needy": "--golden was not given"}


def test_results_are_those_since_the_last_start(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    rows = [
        {"stage": "a", "status": "started"},
        {"stage": "a", "summary": "old"},
        {"stage": "a", "status": "interrupted", "exit_code": -9, "seconds": 1.0},
        {"stage": "a", "status": "started"},
        {"stage": "a", "summary": "new"},
        {"stage": "b", "status": "started"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)) + '\n{"stage": "b", "val')
    results = read_results(path)
    assert (results["a"].status, results["a"].summary, len(results["a"].rows)) == ("started", "new", 1)
    assert not results["b"].is_complete
    table = format_table(results, [("c", "no time was left")])
    assert table.splitlines() == ["a  started    new", "b  started", "c  not run    no time was left"]


def test_bundle_carries_what_the_machine_lacks() -> None:
    missing = {line.partition("==")[0] for line in bundle.list_missing(bundle.ROOTS)}
    assert {"pydantic", "pydantic-core", "cyclopts", "tomli-w", "platformdirs", "kornia", "sybil"} <= missing
    assert not missing & {"torch", "numpy", "pytest", "gantoolkit"}


def test_kernel_archive_lists_the_files_of_its_new_folder(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    from benchmarks.gpu import kernel_cache

    kernel = tmp_path / "here" / "KEY"
    kernel.mkdir(parents=True)
    for name in ("_pad.cubin", "_pad.json", "_pad.ptx", "__grp___pad.json"):
        (kernel / name).write_text("{}")
    kernel_cache.pack(kernel.parent, tmp_path / "kernels.zip")
    kernel_cache.unpack(tmp_path / "kernels.zip", tmp_path / "there")
    copy = tmp_path / "there" / "KEY"
    assert json.loads((copy / "__grp___pad.json").read_text()) == {
        "child_paths": {name: str(copy / name) for name in ("_pad.cubin", "_pad.json")}
    }


# The bundle, and the command in a bare environment.


@pytest.fixture(scope="module")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for the Python that runs the tests."""
    folder = tmp_path_factory.mktemp("bundle") / "gpu-bundle"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    command = [sys.executable, "-m", "benchmarks.gpu.bundle", "--out", str(folder), "--python-version", version]
    completed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if "pip download failed" in completed.stderr:
        pytest.skip(f"the wheels could not be downloaded: {completed.stderr.strip().splitlines()[-1]}")
    assert completed.returncode == 0, completed.stderr
    assert "bash" in completed.stdout.splitlines()[-1]
    return folder


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with the packages that a machine with PyTorch has, and their requirements; links to those installed here."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder / "venv", with_pip=False)
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    packages = folder / "packages"
    packages.mkdir()
    (site / "packages.pth").write_text(f"{packages}\n")
    for name in closure([*bundle.list_preinstalled(), "pip"]):
        for path in metadata.distribution(name).files or ():
            top = Path(path.parts[0])
            source = Path(str(metadata.distribution(name).locate_file(top)))
            if top.parts != ("..",) and top.name != "__pycache__" and not (packages / top).exists():
                (packages / top).symlink_to(source)
    return folder / "venv" / "bin" / "python"


def closure(names: list[str]) -> set[str]:
    """The installed packages among `names`, with their requirements."""
    packages: set[str] = set()
    while names:
        name = bundle.normalize(names.pop())
        with contextlib.suppress(metadata.PackageNotFoundError):
            requirements = [Requirement(line) for line in metadata.requires(name) or ()]
            if name not in packages:
                names += [r.name for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
            packages.add(name)
    return packages


@pytest.fixture(scope="module")
def site(bundle_folder: Path, bare_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheels of the bundle, installed as `run.sh` does."""
    folder = tmp_path_factory.mktemp("site")
    wheels = map(str, (bundle_folder / "wheels").glob("*.whl"))
    options = ["--quiet", "--no-index", "--no-deps", f"--target={folder}"]
    subprocess.run([bare_python, "-m", "pip", "install", *options, *wheels], check=True)
    return folder


def environment_with(**variables: str) -> dict[str, str]:
    """The environment without what conftest.py has set: plugins are found, and the cache is that of the user."""
    names = os.environ.keys() - {"GANTOOLKIT_PLUGINS", "GANTOOLKIT_CACHE"}
    return {name: os.environ[name] for name in names} | variables


slow = pytest.mark.slow(reason="downloads and builds wheels, and runs benchmarks in a bare environment")


@slow
def test_bundle_is_small_and_complete(bundle_folder: Path) -> None:
    assert bundle.measure(bundle_folder) <= bundle.MAX_BYTES
    wheels = {path.name.partition("-")[0] for path in (bundle_folder / "wheels").iterdir()}
    assert {"gantoolkit", "gantoolkit_vit", "gantoolkit_cut", "gantoolkit_augment", "pydantic_core"} <= wheels
    assert (bundle_folder / "run.sh").is_file()


@slow
def test_bundle_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setattr(bundle, "MAX_BYTES", 2**10)
    monkeypatch.setattr(bundle, "download_wheels", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["bundle", "--out", str(tmp_path / "bundle")])
    assert bundle.main() == 1
    assert "the limit is" in capsys.readouterr().err


@slow
def test_bare_environment_has_entry_points_and_collects_cuda_tests(bare_python: Path, site: Path) -> None:
    program = (
        "import gantoolkit.cli; from gantoolkit.plugins import generators as g; print([e.name for e in g.entries()])"
    )
    alone = subprocess.run([bare_python, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "No package metadata was found for gantoolkit" in alone.stderr
    environment = environment_with(PYTHONPATH=f"{ROOT}{os.pathsep}{site}")
    output = subprocess.check_output([bare_python, "-c", program], cwd=ROOT, env=environment, text=True)
    assert {"resnet", "unet", "vit_unet"} <= set(re.findall(r"\w+", output))
    options = ["-m", "cuda", "--collect-only", "-q", "-p", "no:cacheprovider"]
    command = [bare_python, "-m", "pytest", *options, *list_test_files()]
    completed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    output = completed.stdout
    assert completed.returncode == 0, output
    assert len(re.findall(r"^tests/.*::", output, flags=re.MULTILINE)) > 15


@pytest.fixture(scope="module")
def device_python(bare_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bare Python on a stand-in for CUDA."""
    from fakecuda.building import MissingRequirementError, environment

    try:
        variables = environment()
    except MissingRequirementError as error:
        pytest.skip(str(error))
    settings = " ".join(f'{name}="{value}"' for name, value in variables.items() if name != "TRITON_CACHE_DIR")
    script = tmp_path_factory.mktemp("python") / "python"
    script.write_text(f'#!/bin/sh\nexec env {settings} "{bare_python}" "$@"\n')
    script.chmod(0o755)
    return script


@contextlib.contextmanager
def start_command(bundle_folder: Path, python: Path, out: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = ["bash", str(bundle_folder / "run.sh"), "--out", str(out), "--quick", "--jobs", "1", *arguments]
    environment = environment_with(PYTHON=str(python), OMP_NUM_THREADS="1")
    options = {"cwd": ROOT, "env": environment, "stdout": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


@slow
def test_command_runs_through_is_continued_and_reports_a_failing_stage(bundle_folder, device_python, tmp_path) -> None:
    out = tmp_path / "out"
    stages = ["machine", "check-recipes", "check-memory", "inference-1", "profile"]
    with start_command(bundle_folder, device_python, out, "--ignore-values", "--stages", *stages) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("machine: passed")
        wait_for(lambda: "check-recipes" in read_results(out / "results.jsonl"))
        os.killpg(process.pid, signal.SIGTERM)
        output = process.stdout.read()
        assert process.wait(timeout=PATIENCE) != 0
    assert re.search(r"^check-recipes +interrupted", output, flags=re.MULTILINE), output
    assert re.search(r"^inference-1 +not run +no time was left", output, flags=re.MULTILINE), output
    first = (out / "results.jsonl").read_text()
    with start_command(bundle_folder, device_python, out, "--ignore-values", "--stages", *stages) as process:
        output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, (out / "log.txt").read_text()
    assert (out / "results.jsonl").read_text().startswith(first)
    assert "machine: passed" not in output, "it was complete"
    assert "Values were ignored" in output.splitlines()[-1]
    # The kernels of the stand-in do nothing, so values are wrong where they are not ignored.
    again = ["--stages", "check-kernels", "check-memory", "--again", "check-memory"]
    with start_command(bundle_folder, device_python, out, *again) as process:
        output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    results = read_results(out / "results.jsonl")
    assert (results["check-kernels"].status, results["check-memory"].status) == ("failed", "passed")
    assert "exceeds" in results["check-kernels"].summary
    assert sorted(path.name for path in out.iterdir()) == ["log.txt", "results.jsonl"]
