"""The structure of the repository: what is at the top of the package, and what tests may import."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gantoolkit"
TESTS = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "plugins").glob("*/tests/*.py")]


def imports_of(path: Path) -> list[tuple[str, str]]:
    """The modules and names of all `from ... import` statements."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return [(node.module or "", alias.name) for node in statements for alias in node.names]


def test_the_top_of_the_package_holds_packages() -> None:
    modules = {path.name for path in PACKAGE.glob("*.py")}
    assert modules == {"__init__.py", "__main__.py", "errors.py", "official.py", "plugins.py", "run.py"}


def test_no_module_is_named_utils() -> None:
    assert not [path for path in PACKAGE.rglob("*.py") if "util" in path.stem]


def test_every_package_says_what_it_holds() -> None:
    packages = list(PACKAGE.rglob("__init__.py"))
    assert not [path for path in packages if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_tests_import_public_names_and_no_other_test(path: Path) -> None:
    problems = [
        f"from {module} import {name}"
        for module, name in imports_of(path)
        if module.rpartition(".")[2].startswith("test_")
        or (name.startswith("_") and not name.startswith("__") and not module.startswith("_helpers"))
    ]
    assert not problems


def test_tests_mirror_the_package() -> None:
    """A folder of tests has the name of a package, or holds tests of several."""
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"}
    packages = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    assert folders - packages == {"_helpers", "fakecuda", "hostile"}


def test_extras_that_are_named_exist() -> None:
    """`pip` only warns of an extra that does not exist."""
    extras = set(
        tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    )
    files = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "Makefile", "pyproject.toml")]
    for folder in ("benchmarks", "docs", "gantoolkit", "plugins"):
        files += [path for path in (ROOT / folder).rglob("*") if path.suffix in (".md", ".py", ".toml")]
    unknown = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in files
        for names in re.findall(r"(?:gantoolkit|\"\.)\[([a-z]+(?:,[a-z]+)*)\]", path.read_text(encoding="utf-8"))
        for name in names.split(",")
        if name not in extras
    }
    assert not unknown
