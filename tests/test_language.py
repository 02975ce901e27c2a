"""The language of the project: plain technical English in American spelling, as the glossary in CONTRIBUTING.md has it."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = ("gantoolkit", "plugins", "benchmarks", "docs/hooks", "tests")
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs", "plugins", "gantoolkit")

PHRASES = {
    r"sooner|soonest": "faster, fastest",
    r"(?<!there )\b(?:is|are|was|were) no (?!longer|more|less|fewer)\w": "is not",
    r"can(?:not|n't)? be had\b": "is (not) available, could not be loaded",
    r"\bthe truth\b": "the ground truth",
    r"(?<!\.)\bfigures?\b(?! \d)(?!\()": "score, value",
    r"\bmend(?:s|ed|ing)?\b": "fix",
    r"\bstrangers?\b": "third party, untrusted",
    r"\b(?:take|takes|taken|taking|took) up\b": "resume",
    r"\b(?:tell|tells|told|telling) (?:\w+ )?(?:apart|from)\b": "distinguish",
    r"\bspoil(?:t|ed|s)?\b": "non-finite, damaged",
    r"\bwithout memory\b": "on the meta device",
    r"\bc[oa]mes? about\b|\bwhat came of\b|\bwhat \w+ (?:came|comes|come) to\b": "to produce, result",
    r"\bstoreys?\b": "layer",
    r"\banew\b": "again",
    r"\bthe writer\b": "the main process",
    r"\bin the mean\b": "on average",
    r"\b\w*(?:ptimis|ormalis|ecognis|ummaris|nitialis|erialis|ynchronis|egularis)(?:e|ed|er|es|ing|ation)\w*\b": "-ize",
    r"\b\w*(?:inimis|aximis|enalis|rganis)(?:e|ed|er|es|ing|ation)\w*\b": "-ize",
    r"\b\w*(?:colour|behaviour|neighbour|favour)\w*\b": "-or",
    r"\b(?:grey|centre[sd]?|catalogue|licence|learnt|misspelt|cancelled|labelled)\b": "American spelling",
}
PARTICIPLES = {"made", "found", "wanted", "kept", "given", "told", "said", "asked"}
ALLOWED = re.compile(
    r"CancelledError|\.cancelled\b|aria-labelledby"  # names of other projects
    r"|matplotlib\.figure|Figure\(|as Figure|figure\.|figure =|</?figure|figure (?:img )?\{"  # pictures
)


def python_files() -> list[Path]:
    return sorted(path for folder in CODE for path in (ROOT / folder).rglob("*.py") if path.name != "test_language.py")


def pages() -> list[Path]:
    roots = [ROOT / page for page in PAGES]
    found = [root for root in roots if root.is_file()]
    for root in roots:
        if root.is_dir():
            found += [path for ending in ("*.md", "*.jinja", "*.j2") for path in root.rglob(ending)]
    return sorted(found)


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """The comments and string literals of a Python file, line by line; the lines of any other file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        glossary = path.name == "CONTRIBUTING.md"  # whose table quotes what not to write
        yield from (
            (n, line) for n, line in enumerate(text.splitlines(), start=1) if not (glossary and line.startswith("|"))
        )
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            yield from enumerate(token.string.splitlines(), start=token.start[0])


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", [*python_files(), *pages()], ids=name_of)
def test_no_phrase_that_the_glossary_replaces(path: Path) -> None:
    problems = [
        f"{name_of(path)}:{number}: '{match[0]}'; write: {instead}"
        for number, line in prose(path)
        if not ALLOWED.search(line)
        for pattern, instead in PHRASES.items()
        if (match := re.search(pattern, line, flags=re.IGNORECASE))
    ]
    assert not problems, "\n" + "\n".join(problems)


@pytest.mark.parametrize("path", python_files(), ids=name_of)
def test_identifiers_are_nouns_and_verbs(path: Path) -> None:
    """A bare past participle does not say what the value is."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = [
        (node.lineno, node.id)
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    ]
    names += [(node.lineno, node.arg) for node in ast.walk(tree) if isinstance(node, ast.arg)]
    names += [(node.lineno, node.name) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    problems = [f"{name_of(path)}:{number}: {name}" for number, name in names if name.strip("_") in PARTICIPLES]
    assert not problems, "\n" + "\n".join(problems)
