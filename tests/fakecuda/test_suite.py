"""All tests that are marked `cuda`, with values ignored: they must get through on the host's side."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fakecuda.building import MissingRequirementError, environment

pytestmark = pytest.mark.slow(reason="runs the tests of CUDA on the stand-in: two minutes")

ROOT = Path(__file__).parents[2]
MARK = re.compile(r"^\s*@pytest\.mark\.cuda$", re.MULTILINE)
FILES = [
    path.relative_to(ROOT).as_posix()
    for folder in ("tests", "plugins")
    for path in sorted((ROOT / folder).rglob("test_*.py"))
    if MARK.search(path.read_text(encoding="utf-8"))
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, list[tuple[str, str]]]:
    """By file: its tests, each with what went wrong; all in one process, as on a machine with a device."""
    try:
        variables = environment()
    except MissingRequirementError as error:
        pytest.skip(str(error))
    report = tmp_path_factory.mktemp("report") / "report.xml"
    options = ["-p", "fakecuda.values", "-p", "no:cacheprovider", "-m", "cuda", f"--junitxml={report}"]
    paths = [str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *options, *FILES],
        cwd=ROOT,
        env={**os.environ, **variables, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert report.is_file(), process.stdout + process.stderr
    tests: dict[str, list[tuple[str, str]]] = {path: [] for path in FILES}
    for case in ElementTree.parse(report).iter("testcase"):
        module = case.get("classname", "").replace(".", "/")
        (path,) = (path for path in FILES if module.startswith(path.removesuffix(".py")))
        problems = [element.get("message", "") for element in case if element.tag in ("failure", "error", "skipped")]
        tests[path].append((case.get("name", ""), " ".join(problems)))
    return tests


@pytest.mark.parametrize("path", FILES)
def test_tests_of_cuda(path: str, results: Mapping[str, list[tuple[str, str]]]) -> None:
    assert results[path], "no test ran"
    problems = [f"{name}: {problem}" for name, problem in results[path] if problem]
    assert not problems, "\n" + "\n".join(problems)
