"""Data sets as folders: the three layouts, and what is said about any other."""

import unicodedata
from pathlib import Path

import pytest
from _helpers.small import make_files, make_image, make_tiny

from gantoolkit.data import open_dataset, open_test_images
from gantoolkit.data.evaluation_images import EvaluationImages
from gantoolkit.errors import CheckpointError, DataError
from gantoolkit.recipes.settings import DataSettings
from gantoolkit.run import Run
from gantoolkit.training.agreement import describe_dataset

JOINED = ("trainA/a.png", "trainB/b.png")
NESTED = ("train/A/a.png", "train/B/b.png")


def open_files(root: Path, *names: str, split: str = "train") -> dict[str, list[str]]:
    dataset = open_dataset(make_files(root, *names), split=split)
    return {
        domain: [
            file.path.relative_to(root).as_posix() + (f" {file.half}" if file.half else "")
            for file in dataset.files(domain)
        ]
        for domain in "AB"
    }


class TestLayouts:
    def test_two_folders(self, tmp_path: Path) -> None:
        assert open_files(tmp_path, *JOINED) == {"A": ["trainA/a.png"], "B": ["trainB/b.png"]}
        assert open_dataset(tmp_path).notes == ()

    def test_domains_in_the_folder_of_the_split(self, tmp_path: Path) -> None:
        assert open_files(tmp_path, *NESTED, "train/A/sub/c.png") == {
            "A": ["train/A/a.png", "train/A/sub/c.png"],
            "B": ["train/B/b.png"],
        }
        assert open_dataset(tmp_path).notes == ()

    def test_side_by_side_is_always_named(self, tmp_path: Path) -> None:
        assert open_files(tmp_path, "train/a.png", "train/b.png") == {
            "A": ["train/a.png left", "train/b.png left"],
            "B": ["train/a.png right", "train/b.png right"],
        }
        dataset = open_dataset(tmp_path)
        assert dataset.notes == (
            "train: 2 pictures are cut in half (a.png is 80×40): the left half is A, the right half B",
        )
        assert dataset.passed_over == ()
        make_image(0, (40, 40)).save(tmp_path / "train" / "a.png")
        assert open_dataset(tmp_path).notes[0].endswith("; single images belong in trainA and trainB")
        (tmp_path / "train" / "a.png").write_text("damaged")
        assert open_dataset(tmp_path).notes == (
            "train: 2 pictures are cut in half: the left half is A, the right half B",
        )

    @pytest.mark.parametrize(
        ("test", "count"),
        [(("testA/x.png", "testB/x.png"), 1), (("test/A/x.png", "test/B/x.png", "test/B/y.png"), 1), ((), None)],
    )
    @pytest.mark.parametrize("train", [JOINED, NESTED, ("train/a.png",)])
    def test_each_split_may_have_its_own_layout(
        self, train: tuple[str, ...], test: tuple[str, ...], count: int | None, tmp_path: Path
    ) -> None:
        make_files(tmp_path, *train, *test)
        images = open_test_images(tmp_path)
        assert (images and len(images.files("A"))) == count
        assert all(file.half is None for file in (images.files("A") if images else ()))

    def test_images_beside_the_folders_of_domains_are_named(self, tmp_path: Path) -> None:
        open_files(tmp_path, *NESTED, "train/x.png", "train/C/y.png", "train/AB/z.png")
        note = "train: 1 image and the folders AB and C beside the folders of A and B are not used"
        assert open_dataset(tmp_path).passed_over == (note,)

    @pytest.mark.parametrize(
        ("names", "note"),
        [
            (("testA/x.png",), "testA is not used: the other domain has no test images"),
            (("test/B/x.png",), "test/B is not used: the other domain has no test images"),
            (
                ("test/x.png",),
                "test: 1 image is not used: beside trainA and trainB, test images are in testA and testB",
            ),
        ],
    )
    def test_test_images_that_are_not_used_are_named(self, names: tuple[str, ...], note: str, tmp_path: Path) -> None:
        make_files(tmp_path, *JOINED, *names)
        assert open_dataset(tmp_path).notes == (note,)
        assert open_test_images(tmp_path) is None
        with pytest.raises(DataError, match=r"domain [AB] is missing|test holds images of neither domain"):
            open_dataset(tmp_path, split="test")

    def test_images_beside_the_folders_and_other_splits_are_noted(self, tmp_path: Path) -> None:
        make_files(tmp_path, *JOINED, "x.png", "valA/a.png", "valB/b.png")
        first, second = open_dataset(tmp_path).notes
        assert first == f"1 image directly in {tmp_path} is not used"
        assert second.startswith("the split 'val' is not used during training")
        make_files(tmp_path, "testA/a.png", "testB/b.png")
        assert open_dataset(tmp_path).notes == (first,)

    def test_files_that_are_not_read_are_named(self, tmp_path: Path) -> None:
        make_files(tmp_path, *JOINED, "trainA/c.heic", "trainB/d.tga", "trainB/notes.txt")
        dataset = open_dataset(tmp_path)
        assert dataset.notes == dataset.passed_over
        assert [note.partition(",")[0] for note in dataset.notes] == [
            "trainA: 1 file is not read (.heic 1)",
            "trainB: 1 file is not read (.tga 1)",
        ]


PROBLEMS = [
    (("trainA/a.png",), "domain B is missing: expected the folder trainB; found the folder trainA"),
    (
        ("trainB/a.png", "testA/a.png"),
        "domain A is missing: expected the folder trainA; found the folders testA and trainB",
    ),
    (("train/B/a.png",), "domain A is missing: expected the folder train/A; found the folder B"),
    (
        ("trainA/a.png", "train_B/b.png"),
        "found the folders trainA and train_B; did you mean train_B\\? Rename it to trainB",
    ),
    (
        ("train/horses/a.png", "train/zebras/b.png"),
        "train holds the folders horses and zebras and no image; rename horses and zebras to A and B; a folder train without",
    ),
    (
        ("train/a.png", "train/sub/b.png"),
        "side by side are directly in train, and 1 image is in its folders, such as sub",
    ),
    ((*JOINED, *NESTED), "trainA and trainB are there beside train/A and train/B; the images of a split are in"),
    (
        ("trainA/a.png", "train/B/b.png"),
        "trainA is there beside train/B; the images of a split are in trainA and trainB, or",
    ),
    (("A/train/a.png", "B/train/b.png"), "found A/train and B/train: move them to trainA and trainB"),
    (("A/a.png", "B/b.png"), "found the folders A and B: rename them to trainA and trainB"),
    (("horses/a.png", "zebras/b.png"), "found the folders horses and zebras: rename them to trainA and trainB"),
    (("Train_A/a.png", "Train_B/b.png"), "rename Train_A to trainA; rename Train_B to trainB"),
    (("train/a/x.png", "train/b/y.png"), "rename a to A and b to B"),
    (("Train/A/x.png", "Train/B/y.png"), "rename Train to train"),
    (("set/trainA/a.png", "set/trainB/b.png"), r"did you mean .*set\?"),
    (("train/trainA/a.png", "train/trainB/b.png"), r"did you mean .*train\?"),
    (("a.png", "b.png"), "it holds 2 images itself, and a data set holds folders of images"),
    (("notes.txt",), "the folders trainA and trainB are missing; found no folder"),
]


@pytest.mark.parametrize(("names", "words"), PROBLEMS)
def test_other_layouts_get_a_hint(names: tuple[str, ...], words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        open_files(tmp_path / "root", *names)


def test_other_splits_get_a_hint(tmp_path: Path) -> None:
    make_files(tmp_path, *JOINED, "valA/x.png", "valB/x.png")
    with pytest.raises(DataError, match=r"found the split 'val': .* gantoolkit evaluate --split val"):
        open_dataset(tmp_path, split="test")
    assert open_files(tmp_path, split="val") == {"A": ["valA/x.png"], "B": ["valB/x.png"]}


def test_url_is_named_as_one() -> None:
    with pytest.raises(DataError, match=r"^https:/.*: is a URL, not a folder; download the data set first$"):
        open_dataset("https://example.org/horse2zebra.zip")


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such folder; a data set is a folder with trainA and trainB"):
        open_dataset(tmp_path / "nowhere")
    make_files(tmp_path, "trainA/a.txt", "trainB/b.png")
    with pytest.raises(DataError, match="trainA: contains no image"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("layout", ["train{}", "train/{}"])
def test_pairs_are_matched_in_both_layouts(layout: str, tmp_path: Path) -> None:
    A, B = layout.format("A"), layout.format("B")
    make_files(tmp_path, f"{A}/b.png", f"{A}/a.png", f"{B}/a.jpg", f"{B}/b.jpg")
    dataset = open_dataset(tmp_path, pairing="paired")
    assert [[file.path.stem for file in dataset.files(domain)] for domain in "AB"] == [["a", "b"]] * 2
    make_files(tmp_path, f"{B}/c.jpg")
    with pytest.raises(DataError, match=f"1 file has no partner, {B}/c.jpg first"):
        open_dataset(tmp_path, pairing="paired")


class TestEvaluation:
    def test_reason_why_images_are_not_pairs_is_noted(self, tmp_path: Path) -> None:
        make_files(tmp_path, "testA/a.png", "testA/b.png", "testB/a.png")
        images = EvaluationImages.open(tmp_path, DataSettings())
        assert not images.paired
        (note,) = images.notes
        assert note.startswith("the images are not used as pairs: ")
        assert "1 file has no partner, testA/b.png first" in note
        make_files(tmp_path, "testA/a.jpg", "testB/b.jpg", "testB/b.webp")
        assert (
            "testB/b.jpg and testB/b.webp share the name 'b'"
            in EvaluationImages.open(tmp_path, DataSettings()).notes[0]
        )

    def test_images_of_unrelated_names_need_no_reason(self, tmp_path: Path) -> None:
        make_files(tmp_path, "testA/a.png", "testB/b.png")
        assert EvaluationImages.open(tmp_path, DataSettings()).notes == ()


def test_runs_are_not_written_among_the_images(tmp_path: Path) -> None:
    data = make_files(tmp_path / "data", *NESTED)
    make_files(tmp_path / "store", "more/c.png")
    (data / "train" / "A" / "more").symlink_to(tmp_path / "store")
    for out in (data / "train" / "run", data / "train" / "A" / "run", tmp_path / "store" / "run"):
        with pytest.raises(CheckpointError, match="its samples would become part of the data set"):
            Run.start(make_tiny(), data, out)
    Run.start(make_tiny(), data, data / "run")


def test_data_set_is_the_same_however_accents_are_stored(tmp_path: Path) -> None:
    """A run resumes on a copy of its data set on another file system."""
    names = ("trainA/é.png", "trainA/z.png", "trainB/a.png")
    descriptions = {
        describe_dataset(
            open_dataset(make_files(tmp_path / form, *(unicodedata.normalize(form, name) for name in names)))
        )
        for form in ("NFC", "NFD")
    }
    assert len(descriptions) == 1
