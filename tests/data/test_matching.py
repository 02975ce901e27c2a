"""Pairs by name: exact names first, then Unicode's composed form, then names without their suffix."""

import unicodedata
from pathlib import Path

import pytest
from _helpers.small import make_files

from gantoolkit.data.listing import list_images
from gantoolkit.data.matching import PairingError, match_files

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))


def match(root: Path, *names: str) -> list[tuple[str, str]]:
    make_files(root, *names)
    pairs = match_files(list_images(root / "A"), list_images(root / "B"), ("A", "B"))
    return [tuple(path.relative_to(root).as_posix() for path in pair) for pair in pairs]  # type: ignore[misc]


def problem(root: Path, *names: str) -> str:
    with pytest.raises(PairingError) as error:
        match(root, *names)
    return str(error.value)


def test_suffixes_may_differ(tmp_path: Path) -> None:
    names = ("A/b.png", "A/a.png", "B/a.jpg", "B/b.webp", "A/sub/a.1.png", "B/sub/a.1.tif")
    assert match(tmp_path, *names) == [
        ("A/a.png", "B/a.jpg"),
        ("A/b.png", "B/b.webp"),
        ("A/sub/a.1.png", "B/sub/a.1.tif"),
    ]


def test_exact_names_match_first(tmp_path: Path) -> None:
    names = ("A/a.png", "A/a.jpg", "B/a.jpg", "B/a.png")
    assert match(tmp_path, *names) == [("A/a.jpg", "B/a.jpg"), ("A/a.png", "B/a.png")]


@pytest.mark.parametrize("side", ["A", "B"])
def test_ambiguous_names_are_an_error_that_names_both_files(side: str, tmp_path: Path) -> None:
    other = {"A": "B", "B": "A"}[side]
    text = problem(tmp_path, f"{side}/a.png", f"{side}/a.jpg", f"{other}/a.tif", "A/b.png", "B/b.png")
    assert text.startswith(
        f"{side}/a.jpg and {side}/a.png share the name 'a', so the partner of {other}/a.tif is ambiguous; rename or remove"
    )


def test_the_first_ambiguous_name_is_reported(tmp_path: Path) -> None:
    names = [
        f"{folder}/{number}.{suffix}"
        for number in range(9)
        for folder, suffix in (("A", "png"), ("B", "jpg"), ("B", "gif"))
    ]
    assert problem(tmp_path, *names).startswith("B/0.gif and B/0.jpg share the name '0'")


def test_second_file_of_a_name_has_no_partner(tmp_path: Path) -> None:
    text = problem(tmp_path, "A/a.png", "A/a.jpg", "B/a.jpg")
    assert text == "1 file has no partner, A/a.png first: A/a.jpg and B/a.jpg are a pair; rename or remove A/a.png"


def test_names_are_compared_in_composed_form(tmp_path: Path) -> None:
    names = (f"A/{COMPOSED}.png", f"B/{DECOMPOSED}.png", f"A/sub{DECOMPOSED}/x.png", f"B/sub{COMPOSED}/x.jpg")
    assert len(match(tmp_path, *names)) == 2


def test_two_forms_of_one_name_in_a_folder(tmp_path: Path) -> None:
    exact = (f"A/{COMPOSED}.png", f"A/{DECOMPOSED}.png", f"B/{COMPOSED}.png", f"B/{DECOMPOSED}.png")
    assert match(tmp_path / "exact", *exact) == sorted(zip(exact[:2], exact[2:], strict=True))
    text = problem(tmp_path / "ambiguous", f"A/{COMPOSED}.png", f"A/{DECOMPOSED}.png", f"B/{COMPOSED}.jpg")
    assert "(in Unicode's composed form), so the partner of B/" in text


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        (("A/X.JPG", "B/x.jpg"), "B/x.jpg differs in upper and lower case; rename one of them"),
        (
            ("A/sub/x.jpg", "B/x.jpg"),
            "B/x.jpg is in another subfolder; both files of a pair have to be in the same one",
        ),
        (("A/x.png", "B/x.heic", "B/y.png", "A/y.png"), "B/x.heic is not read; convert it to PNG or TIFF"),
    ],
)
def test_hints_for_a_file_without_a_partner(names: tuple[str, ...], hint: str, tmp_path: Path) -> None:
    assert problem(tmp_path, *names).endswith(hint)


def test_file_without_a_partner_is_counted_and_named(tmp_path: Path) -> None:
    text = problem(tmp_path, "A/a.png", "B/a.png", "B/b.png", "B/c.png")
    assert text == (
        "2 files have no partner, B/b.png first; the files of a pair have the same name in A and B; suffixes may differ"
    )
