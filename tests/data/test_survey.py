"""`gantoolkit data check` and `gantoolkit data stats`: statistics of a data set, and its problems."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from _helpers.small import make_dataset, make_files, make_image
from PIL import Image

from gantoolkit.cli import main
from gantoolkit.data import open_test_images, read_image
from gantoolkit.data.survey import draw_contact_sheet, find_notes, find_problems, survey
from gantoolkit.plugins import Pairing
from gantoolkit.recipes.settings import DataSettings


def test_good_data_set_has_no_problems(dataset: Path, capsys) -> None:
    assert find_problems(survey(dataset)) == []
    assert main(["data", "check", str(dataset)]) == 0
    out = capsys.readouterr().out
    assert "trainA 5, trainB 4, testA 2, testB 2; no problems found" in out
    assert "for recipes that learn without pairs only: 1 file has no partner" in out


def test_every_flaw_is_found(dataset: Path, capsys) -> None:
    (dataset / "trainA" / "broken.jpg").write_bytes(b"not an image")
    Image.new("RGB", (50, 50), "teal").save(dataset / "trainA" / "flat.png")
    shutil.copy(dataset / "trainA" / "00.png", dataset / "trainA" / "copy.png")
    shutil.copy(dataset / "trainA" / "01.png", dataset / "testA" / "leak.png")
    shutil.copy(dataset / "trainA" / "02.png", dataset / "trainB" / "both.png")
    make_image(50, (20, 20)).save(dataset / "trainB" / "small.png")
    make_image(51, (200, 50)).save(dataset / "trainB" / "long.png")
    make_image(52).convert("L").save(dataset / "trainB" / "gray.png")
    texts = "\n".join(problem.text for problem in find_problems(survey(dataset)))
    for expected in (
        "trainA: 1 of 8 files cannot be read; the first, ",
        "trainA: 1 image shows a single color",
        "trainA: 1 image has duplicates",
        "1 image is in trainA and in trainB, so the domains overlap",
        "1 image is in trainA and in testA, so test scores are too good",
        "trainB: 1 image is smaller than 32 pixels, such as 20×20",
        "trainB: 1 image has an aspect ratio above 1.5, such as 200×50",
        "trainB: 1 of 8 images is gray",
    ):
        assert expected in texts
    assert main(["data", "check", str(dataset)]) == 3
    assert capsys.readouterr().out.count("flaw: ") == 8


def test_test_images_of_one_domain_are_not_used(dataset: Path) -> None:
    shutil.rmtree(dataset / "testB")
    (dataset / "test").mkdir()  # ignored beside trainA and trainB
    make_image(1, (41, 20)).save(dataset / "test" / "odd.png")
    data = survey(dataset)
    assert list(data.domains) == ["trainA", "trainB"]
    assert [problem.text for problem in find_problems(data)] == [
        "testA is not used: the other domain has no test images"
    ]
    assert open_test_images(dataset) is None


def test_identical_domains_are_an_error(tmp_path: Path, capsys) -> None:
    root = make_dataset(tmp_path / "set", count_A=3, count_B=0, test=0)
    shutil.copytree(root / "trainA", root / "trainB")
    assert main(["data", "check", str(root)]) == 2
    assert "error: 3 images are in trainA and in trainB" in capsys.readouterr().out


def test_stats_command_draws_a_contact_sheet(dataset: Path, tmp_path: Path, capsys) -> None:
    assert main(["data", "stats", str(dataset), "--sheet", str(tmp_path / "sheet.png")]) == 0
    out = capsys.readouterr().out
    assert "trainA" in out
    assert "40×36" in out
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (8 * 96, 4 * (20 + 2 * 96))
    small = draw_contact_sheet(survey(dataset), columns=4, rows=1, side=40)
    # The first cell shows the first image of trainA.
    expected = read_image(dataset / "trainA" / "00.png")
    expected.thumbnail((36, 36), Image.Resampling.LANCZOS)
    left, top = (40 - expected.width) // 2, 20 + (40 - expected.height) // 2
    assert small.crop((left, top, left + expected.width, top + expected.height)) == expected


def test_missing_data_set(tmp_path: Path, capsys) -> None:
    assert main(["data", "check", str(tmp_path / "nothing")]) == 2
    assert "no such folder" in capsys.readouterr().err


def problems_of(root: Path, settings: DataSettings | None = None, pairing: Pairing | None = None) -> str:
    return "\n".join(problem.text for problem in find_problems(survey(root, settings, pairing=pairing)))


def make_side_by_side(root: Path, count: int = 4, size: tuple[int, int] = (80, 40)) -> Path:
    """Pictures whose halves differ."""
    folder = root / "train"
    folder.mkdir(parents=True)
    half = (size[0] // 2, size[1])
    for number in range(count):
        halves = [np.asarray(make_image(number + first, half)) for first in (0, 100)]
        Image.fromarray(np.concatenate(halves, axis=1)).save(folder / f"{number}.png")
    return root


class TestHalves:
    def test_cut_pictures_are_always_named_with_their_sizes(self, command, tmp_path: Path) -> None:
        code, output, _ = command("data", "check", make_side_by_side(tmp_path / "set"))
        assert code == 0
        assert "note: train: 4 pictures of 80×40 are cut in half: the left half is A, the right half B" in output

    @pytest.mark.parametrize("size", [(40, 40), (40, 60), (320, 40)])
    def test_unusual_sizes_are_a_flaw(self, size: tuple[int, int], command, tmp_path: Path) -> None:
        make_side_by_side(tmp_path / "set")
        make_image(0, size).save(tmp_path / "set" / "train" / "photo.png")
        code, output, _ = command("data", "check", tmp_path / "set")
        assert code == 3
        assert (
            f"1 picture of unusual size would be cut in half, such as {size[0]}×{size[1]}; single images belong"
            in output
        )

    def test_single_images_of_a_usual_size_are_a_flaw(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        (tmp_path / "train").mkdir()
        for number in range(4):  # a random walk is continuous everywhere
            steps = rng.integers(-20, 21, (48, 64, 3)).cumsum(axis=1) % 256
            Image.fromarray(steps.astype(np.uint8)).save(tmp_path / "train" / f"{number}.png")
        assert "train: its pictures continue across their middle" in problems_of(tmp_path)
        assert problems_of(make_side_by_side(tmp_path / "pairs", size=(64, 48))) == ""

    def test_folders_of_domains_are_not_cut(self, command, tmp_path: Path) -> None:
        for domain in "AB":
            for number in range(3):
                make_files(tmp_path, f"train/{domain}/{domain}{number}.png")
                make_image(number + 10 * ord(domain)).save(tmp_path / "train" / domain / f"{domain}{number}.png")
        code, output, _ = command("data", "check", tmp_path)
        assert code == 0
        assert "cut in half" not in output
        assert "trainA 3, trainB 3; no problems found" in output


def test_pictures_of_which_none_is_readable_have_no_sizes(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    make_image(0, (97, 48)).save(tmp_path / "train" / "0.png")
    data = survey(tmp_path)
    assert all("need an even number" in problem.text for problem in find_problems(data))
    assert find_notes(data) == []


class TestUnequalPairs:
    def make_pairs(self, root: Path, size_A: tuple[int, int], size_B: tuple[int, int]) -> Path:
        for domain, size in (("A", size_A), ("B", size_B)):
            (root / f"train{domain}").mkdir(parents=True)
            for number in range(3):
                make_image(number + 10 * ord(domain), size).save(root / f"train{domain}" / f"{number}.png")
        return root

    def test_other_aspect_ratios_are_named_and_shorter_side_is_not_advised(self, tmp_path: Path) -> None:
        text = problems_of(self.make_pairs(tmp_path, (120, 60), (60, 60)))
        first, second = tmp_path / "trainA" / "0.png", tmp_path / "trainB" / "0.png"
        assert f"trainA and trainB: 3 pairs of 3 differ in size, such as {first} and {second} (120×60" in text
        assert (
            '(120×60 and 60×60); data.resize = "square" stretches both to 286×286, "shorter_side" refuses 3 of them, "none" '
            "refuses 3 of them"
        ) in text
        assert "would be squeezed to a square" in text
        assert "keeps their aspect ratio" not in text

    def test_equal_aspect_ratios(self, tmp_path: Path) -> None:
        text = problems_of(self.make_pairs(tmp_path, (120, 100), (60, 50)))
        assert '"shorter_side" gives both the same size, "none" refuses 3 of them' in text

    def test_recipe_without_pairs_is_not_concerned(self, tmp_path: Path) -> None:
        root = self.make_pairs(tmp_path, (120, 60), (60, 60))
        text = problems_of(root, pairing="unpaired")
        assert "differ in size" not in text
        assert "differ in size" in problems_of(root, pairing="paired")


class TestLabelMaps:
    def make_maps(self, root: Path, suffix: str = ".png", mode: str = "RGB") -> Path:
        rng = np.random.default_rng(1)
        colors = np.array([(128, 64, 128), (70, 70, 70), (220, 20, 60), (0, 0, 142)], dtype=np.uint8)
        for folder in ("trainA", "trainB"):
            (root / folder).mkdir(parents=True)
        for number in range(4):
            labels = colors[rng.integers(0, 4, (5, 5))].repeat(8, 0).repeat(8, 1)
            image = Image.fromarray(labels)
            image = image.quantize(16) if mode == "P" else image.convert(mode)
            image.save(root / "trainA" / f"{number}{suffix}")
            make_image(number).save(root / "trainB" / f"photo{number}.png")
        return root

    @pytest.mark.parametrize(("suffix", "mode"), [(".png", "RGB"), (".png", "L"), (".tif", "RGB"), (".png", "P")])
    def test_few_colors_in_large_areas_are_a_flaw(self, suffix: str, mode: str, tmp_path: Path) -> None:
        text = problems_of(self.make_maps(tmp_path, suffix, mode))
        assert "trainA: its images have 4 colors in large areas, like label maps" in text
        assert 'data.resample_A = "nearest" keeps them' in text
        assert "trainB" not in text

    def test_setting_is_known(self, tmp_path: Path) -> None:
        root = self.make_maps(tmp_path)
        assert problems_of(root, DataSettings(resample_A="nearest")) == ""
        assert problems_of(root, DataSettings(resize="none", crop_size=32)) == ""

    def test_scans_on_black_are_no_label_maps(self, tmp_path: Path) -> None:
        """Half of the pixels have equal neighbors, but the others have many levels."""
        root = self.make_maps(tmp_path)
        for number, path in enumerate(sorted((root / "trainA").iterdir())):
            scan = np.zeros((64, 64), dtype=np.uint8)
            scan[:24] = np.asarray(make_image(number, (64, 24)).convert("L"))
            Image.fromarray(scan).save(path)
        assert "label maps" not in problems_of(root)

    def test_photographs_are_no_label_maps(self, tmp_path: Path) -> None:
        root = self.make_maps(tmp_path, ".jpg")
        assert "label maps" not in problems_of(root)
        for path in (root / "trainA").iterdir():  # 256 levels or colors
            path.unlink()
        for number, mode in enumerate(("L", "P", "L")):
            make_image(number, (90, 80)).convert(mode).save(root / "trainA" / f"{number}.png")
        assert "label maps" not in problems_of(root)


class TestRanges:
    def make_scans(self, root: Path, *images: np.ndarray) -> Path:
        for folder in ("trainA", "trainB"):
            (root / folder).mkdir(parents=True)
        rng = np.random.default_rng(2)
        for number, image in enumerate(images):
            np.save(root / "trainA" / f"{number}.npy", image.astype(np.float32))
            np.save(root / "trainB" / f"b{number}.npy", rng.uniform(0, 100, (40, 40)).astype(np.float32))
        return root

    @pytest.fixture
    def settings(self) -> DataSettings:
        return DataSettings(channels_A=1, channels_B=1, range_A=(0.0, 100.0), range_B=(0.0, 100.0))

    def test_values_outside_the_range_and_the_settings_that_read_them(
        self, settings: DataSettings, tmp_path: Path
    ) -> None:
        rng = np.random.default_rng(3)
        inside, above, padded = (rng.uniform(0, 100, (40, 40)) for _ in range(3))
        above[0, 0], padded[:5] = 130, -9999
        text = problems_of(self.make_scans(tmp_path, inside, above, padded), settings)
        assert "trainA: 2 of 3 files have values from -9999 to 130, outside of the range 0 to 100, such as " in text
        assert "data.nodata_A = -9999.0 if that means no data" in text
        assert ", and for the other values data.clip_A = true" in text
        assert "cannot be read" not in text

    def test_one_setting_is_advised_only_if_it_suffices(self, settings: DataSettings, tmp_path: Path) -> None:
        rng = np.random.default_rng(5)
        padded, deep = rng.uniform(0, 100, (2, 40, 40))
        padded[:5] = deep[:5] = -9999
        deep[20] = -20
        single = self.make_scans(tmp_path / "single", padded)
        assert "if that means no data; or data.clip_A = true" in problems_of(single, settings)
        assert problems_of(single, settings.model_copy(update={"nodata_A": -9999.0})) == ""
        both = self.make_scans(tmp_path / "both", deep)
        assert "if that means no data, and for the other values data.clip_A = true" in problems_of(both, settings)
        assert "from -20 to" in problems_of(both, settings.model_copy(update={"nodata_A": -9999.0}))
        assert problems_of(both, settings.model_copy(update={"nodata_A": -9999.0, "clip_A": True})) == ""

    def test_nan_is_named_with_the_setting_that_reads_it(self, settings: DataSettings, tmp_path: Path) -> None:
        rng = np.random.default_rng(4)
        inside, edge = rng.uniform(0, 100, (40, 40)), rng.uniform(0, 100, (40, 40))
        edge[0] = np.nan
        root = self.make_scans(tmp_path, inside, edge)
        text = problems_of(root, settings)
        assert "trainA: 1 of 2 files have NaN, outside of the range 0 to 100, such as " in text
        assert text.endswith('set data.nodata_A = "nan"')
        assert problems_of(root, settings.model_copy(update={"nodata_A": "nan"})) == ""

    def test_all_files_outside_is_an_error(self, settings: DataSettings, tmp_path: Path) -> None:
        root = self.make_scans(tmp_path, np.full((40, 40), 500.0) + np.arange(40))
        problems = find_problems(survey(root, settings))
        assert [problem.serious for problem in problems] == [True]
        assert "values from 500 to 539" in problems[0].text


def test_photographs_of_few_levels_are_not_label_maps(tmp_path: Path) -> None:
    """12 bits that are stored as 16 become 16 levels in large areas."""
    row, column = np.mgrid[:64, :64]
    for domain in "AB":
        (tmp_path / f"train{domain}").mkdir()
        for number in range(3):
            levels = (40 * column + 10 * (row + number) + 200 * (domain == "B")).astype(np.uint16)
            Image.fromarray(levels).save(tmp_path / f"train{domain}" / f"{number}.png")
    data = survey(tmp_path)
    assert "label maps" not in "\n".join(problem.text for problem in find_problems(data))
    assert any("almost black" in note for note in find_notes(data))


def test_files_that_are_not_read_are_a_flaw(dataset: Path, command) -> None:
    make_files(dataset, "trainA/x.heic", "testB/y.dcm", "trainB/notes.txt")
    code, output, _ = command("data", "check", dataset)
    assert code == 3
    assert "flaw: trainA: 1 file is not read (.heic 1), such as x.heic; convert it to PNG or TIFF" in output
    assert "flaw: testB: 1 file is not read (.dcm 1)" in output
    assert "2 problems found" in output
    code, _, errors = command("data", "stats", dataset, "--sheet", dataset / "sheet.png")
    assert code == 3
    assert "trainA: 1 file is not read (.heic 1)" in errors


def test_every_kind_of_unreadable_file_is_named(dataset: Path) -> None:
    for number in range(3):
        (dataset / "trainA" / f"text{number}.png").write_text("text")
    np.save(dataset / "trainA" / "flat.npy", np.zeros(7))
    text = problems_of(dataset)
    assert "trainA: 3 of 9 files cannot be read; the first, " in text
    assert "trainA: 1 of 9 files cannot be read; the first, " in text


def test_frames_and_transparency_are_named(dataset: Path, command) -> None:
    frames = [make_image(number) for number in range(60, 63)]
    frames[0].save(dataset / "trainA" / "walk.gif", save_all=True, append_images=frames[1:])
    code, output, _ = command("data", "check", dataset)
    assert code == 3
    assert (
        "flaw: " + str(dataset / "trainA" / "walk.gif") + " has several frames, of which only the first is used"
        in output
    )
    assert "3 problems found" not in output


def test_recipe_that_needs_pairs_is_refused_without(dataset: Path, command) -> None:
    assert command("data", "check", dataset, "--recipe", "cyclegan")[0] == 0
    code, output, _ = command("data", "check", dataset, "--recipe", "pix2pix")
    assert code == 2
    assert "error: the recipe learns from pairs: 1 file has no partner, trainA/04.png first" in output


def test_files_that_cannot_be_read_for_many_reasons_are_all_counted(dataset: Path) -> None:
    for number, kind in enumerate(
        [np.float32, np.float64, np.int16, np.complex64, np.complex128, np.bool_, np.uint32, str]
    ):
        np.save(dataset / "trainA" / f"{number}.npy", np.zeros((36, 40), dtype=kind))
    texts = [problem.text for problem in find_problems(survey(dataset)) if "cannot be read" in problem.text]
    counts = [int(text.split()[1]) for text in texts]
    assert sum(counts) == len(survey(dataset).domains["trainA"].bad) > 5
    assert "cannot be read, for other reasons; the first is " in texts[-1]
