import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from _helpers.small import make_dataset, make_image
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gantoolkit.data import (
    Dataset,
    TrainingBatches,
    find_images,
    from_tensor,
    images,
    open_dataset,
    read_image,
    to_tensor,
    write_image,
)
from gantoolkit.data.augmentation import augment, prepare, resize
from gantoolkit.data.encoding import PICTURE, Encoding
from gantoolkit.errors import DataError
from gantoolkit.recipes.settings import DataSettings


def collect(batches: TrainingBatches, start: int, stop: int) -> list[torch.Tensor]:
    return [batch.images[domain] for batch in batches.iterate(start, stop) for domain in "AB"]


def crop_of(picture: Image.Image, settings: DataSettings, seed: int) -> torch.Tensor:
    encoding = Encoding(len(picture.getbands()))
    pixels = np.atleast_3d(np.asarray(picture))
    return augment(resize(pixels, settings, encoding), settings, encoding, random.Random(seed))


def batches_of(root: Path, **options) -> TrainingBatches:
    dataset = open_dataset(root, pairing=options.pop("pairing", "unpaired"))
    settings = DataSettings(load_size=20, crop_size=16, **options.pop("settings", {}))
    return TrainingBatches(dataset, settings, **{"batch_size": 2, "seed": 3, **options})


class TestReading:
    def test_bytes_and_tensors_are_exact_both_ways(self) -> None:
        every_value = np.arange(256, dtype=np.uint8).reshape(16, 16)
        picture = Image.fromarray(np.stack([every_value, every_value[::-1], every_value.T], axis=-1))
        tensor = to_tensor(picture)
        assert (tensor.min(), tensor.max()) == (-1, 1)
        assert np.array_equal(np.asarray(from_tensor(tensor)), np.asarray(picture))

    def test_values_are_rounded_and_clipped_not_truncated(self) -> None:
        levels = torch.tensor([-1.5, -1 + 0.6 / 127.5, -1 + 1.4 / 127.5, 1 - 0.4 / 127.5, 3.0])
        assert np.asarray(from_tensor(levels.reshape(1, 1, 5))).tolist() == [[0, 1, 1, 255, 255]]

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_orientation_is_applied(self, orientation: int, tmp_path: Path) -> None:
        upright = np.zeros((6, 4, 3), dtype=np.uint8)
        upright[0, 0], upright[0, 3], upright[5, 0] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
        # What a camera held that way stores: undo the rotation that the tag asks for.
        undo = {
            1: [],
            2: [Image.Transpose.FLIP_LEFT_RIGHT],
            3: [Image.Transpose.ROTATE_180],
            4: [Image.Transpose.FLIP_TOP_BOTTOM],
            5: [Image.Transpose.TRANSPOSE],
            6: [Image.Transpose.ROTATE_90],
            7: [Image.Transpose.TRANSVERSE],
            8: [Image.Transpose.ROTATE_270],
        }[orientation]
        stored = Image.fromarray(upright)
        for step in undo:
            stored = stored.transpose(step)
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored.save(tmp_path / "photo.png", exif=exif)
        assert np.array_equal(np.asarray(read_image(tmp_path / "photo.png")), upright)

    def test_gray_becomes_three_equal_channels_and_color_its_luminance(self, tmp_path: Path) -> None:
        Image.fromarray(np.array([[0, 128, 255]], dtype=np.uint8)).save(tmp_path / "gray.png")
        assert np.asarray(read_image(tmp_path / "gray.png", 3)).tolist() == [[[0] * 3, [128] * 3, [255] * 3]]
        Image.new("RGB", (1, 1), (255, 0, 0)).save(tmp_path / "red.png")
        assert np.asarray(read_image(tmp_path / "red.png", 1)).tolist() == [[76]]

    def test_what_is_transparent_is_laid_on_white(self, tmp_path: Path) -> None:
        layer = Image.fromarray(np.array([[[9, 9, 9, 0], [0, 0, 0, 255], [0, 0, 0, 51]]], dtype=np.uint8))
        layer.save(tmp_path / "layer.png")
        assert np.asarray(read_image(tmp_path / "layer.png")).tolist() == [[[255] * 3, [0] * 3, [204] * 3]]
        palette = Image.new("P", (2, 1))
        palette.putpalette([10, 20, 30, 40, 50, 60])
        palette.putpixel((1, 0), 1)
        palette.save(tmp_path / "palette.png", transparency=0)
        assert np.asarray(read_image(tmp_path / "palette.png")).tolist() == [[[255] * 3, [40, 50, 60]]]

    def test_sixteen_bits_are_scaled_to_eight(self, tmp_path: Path) -> None:
        Image.fromarray(np.array([[0, 257, 32896, 65535]], dtype=np.uint16)).save(tmp_path / "deep.png")
        assert np.asarray(read_image(tmp_path / "deep.png", 1)).tolist() == [[0, 1, 128, 255]]

    def test_cmyk_becomes_rgb(self, tmp_path: Path) -> None:
        Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "ink.jpg", quality=100)
        red, green, blue = np.asarray(read_image(tmp_path / "ink.jpg"))[0, 0].tolist()
        assert red > 200
        assert max(green, blue) < 60

    def test_text_named_jpg_truncated_and_missing_files_are_named(self, tmp_path: Path) -> None:
        (tmp_path / "text.jpg").write_text("not a picture")
        with pytest.raises(DataError, match=r"text\.jpg: is no image that can be read"):
            read_image(tmp_path / "text.jpg")
        make_image(0, (200, 200)).save(tmp_path / "whole.jpg")
        content = (tmp_path / "whole.jpg").read_bytes()
        (tmp_path / "half.jpg").write_bytes(content[: len(content) // 2])
        with pytest.raises(DataError, match=r"half\.jpg: is damaged or cannot be read"):
            read_image(tmp_path / "half.jpg")
        (tmp_path / "empty.jpg").touch()
        with pytest.raises(DataError, match=r"empty\.jpg: is no image"):
            read_image(tmp_path / "empty.jpg")
        with pytest.raises(DataError, match=r"none\.jpg: no such file"):
            read_image(tmp_path / "none.jpg")

    def test_a_bomb_is_refused_before_it_is_decoded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        make_image(0).save(tmp_path / "bomb.png")
        monkeypatch.setattr(images, "MAX_PIXELS", 100)
        monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("was decoded"))
        with pytest.raises(DataError, match="40×36 pixels are more than the 100 allowed"):
            read_image(tmp_path / "bomb.png")

    def test_writing_is_all_or_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(DataError, match="cannot be written"):
            write_image(make_image(0), tmp_path / "file" / "below.png")
        write_image(make_image(0), tmp_path / "new" / "deep" / "a.png")
        assert [path.name for path in (tmp_path / "new" / "deep").iterdir()] == ["a.png"]


class TestFolders:
    def test_images_are_found_in_the_whole_tree_in_order(self, tmp_path: Path) -> None:
        for name in ("b.png", "a/z.JPG", "a/y.webp", ".hidden/x.png", "notes.txt"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        assert [str(path.relative_to(tmp_path)) for path in find_images(tmp_path)] == ["a/y.webp", "a/z.JPG", "b.png"]

    def test_missing_and_empty_folders_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"nowhere: no such folder; a data set is a folder with trainA and trainB"):
            open_dataset(tmp_path / "nowhere")
        (tmp_path / "trainA").mkdir()
        with pytest.raises(
            DataError, match=r"domain B is missing: no folder 'trainB'; did you mean to rename 'trainA'"
        ):
            open_dataset(tmp_path)
        (tmp_path / "trainB").mkdir()
        with pytest.raises(DataError, match=r"trainA: holds no image"):
            open_dataset(tmp_path)

    def test_pairs_share_a_name(self, tmp_path: Path) -> None:
        for name in ("trainA/b.png", "trainA/a.png", "trainB/a.jpg", "trainB/b.jpg"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        dataset = open_dataset(tmp_path, pairing="paired")
        assert [a.stem for a in dataset.A] == [b.stem for b in dataset.B] == ["a", "b"]
        (tmp_path / "trainB" / "c.jpg").touch()
        with pytest.raises(DataError, match="1 files have no partner, 'c' first"):
            open_dataset(tmp_path, pairing="paired")


class TestAugmentation:
    @given(width=st.integers(20, 60), height=st.integers(20, 60), seed=st.integers(0, 2**16))
    @pytest.mark.parametrize("resize", ["square", "shorter_side", "none"])
    def test_crops_have_the_size_and_lie_inside(self, resize, width, height, seed) -> None:
        settings = DataSettings(resize=resize, load_size=20, crop_size=16)
        picture = make_image(seed, (width, height))
        for crop in (crop_of(picture, settings, seed), prepare(np.asarray(picture), settings, PICTURE)):
            assert crop.shape == (3, 16, 16)
            assert crop.abs().max() <= 1

    def test_every_crop_place_and_both_flips_occur(self) -> None:
        ramp = Image.fromarray(np.tile(np.arange(20, dtype=np.uint8) * 10, (20, 1)))
        settings = DataSettings(load_size=20, crop_size=16)
        crops = [crop_of(ramp, settings, seed) for seed in range(300)]
        lefts = {round((crop[0, 0, 0].item() + 1) * 12.75) for crop in crops}
        assert lefts == {0, 1, 2, 3, 4, 15, 16, 17, 18, 19}
        flipped = sum(crop[0, 0, 0] > crop[0, 0, -1] for crop in crops) / 300
        assert 0.4 < flipped < 0.6

    def test_square_ignores_the_aspect_and_is_bicubic(self) -> None:
        picture = make_image(1, (60, 30))
        settings = DataSettings(load_size=16, crop_size=16, flip=False)
        expected = to_tensor(picture.resize((16, 16), Image.Resampling.BICUBIC))
        assert torch.equal(crop_of(picture, settings, 0), expected)

    def test_too_small_an_image_is_refused_with_the_cure(self) -> None:
        with pytest.raises(
            DataError, match=r'is 10×40, smaller than data\.crop_size 16; set data\.resize = "shorter_side"'
        ):
            crop_of(make_image(0, (10, 40)), DataSettings(resize="none", crop_size=16), 0)


class TestSampling:
    def test_an_epoch_is_as_long_as_the_larger_domain(self, tmp_path: Path) -> None:
        assert batches_of(make_dataset(tmp_path / "a", count_A=5, count_B=3)).steps_per_epoch == 3
        assert batches_of(make_dataset(tmp_path / "b", count_A=2, count_B=7), batch_size=1).steps_per_epoch == 7

    def test_a_comes_once_an_epoch_in_a_new_order_and_b_is_drawn(self, tmp_path: Path) -> None:
        root = tmp_path / "set"
        for domain, count in (("A", 8), ("B", 8)):
            (root / f"train{domain}").mkdir(parents=True)
            for number in range(count):
                Image.new("L", (16, 16), 10 * number).save(root / f"train{domain}" / f"{number}.png")
        batches = TrainingBatches(open_dataset(root), DataSettings(load_size=16, crop_size=16), batch_size=1, seed=0)
        seen = {domain: [] for domain in "AB"}
        for batch in batches.iterate(0, 16):
            for domain in "AB":
                seen[domain].append(round((batch.images[domain].mean().item() + 1) * 12.75))
        first, second = seen["A"][:8], seen["A"][8:]
        assert sorted(first) == sorted(second) == list(range(8))
        assert first != second
        assert len(set(seen["B"][:8])) < 8  # drawn with replacement, not shuffled

    def test_crops_are_drawn_anew_each_epoch_and_independently_for_a_and_b(self, tmp_path: Path) -> None:
        """Implementations that cache after augmentation show the same crop for ever."""
        root = make_dataset(tmp_path / "set", count_A=1, count_B=1)
        (root / "trainB" / "00.png").write_bytes((root / "trainA" / "00.png").read_bytes())
        crops = collect(batches_of(root, batch_size=1), 0, 30)
        assert len({tuple(crop.flatten().tolist()) for crop in crops[::2]}) > 10
        assert sum(torch.equal(a, b) for a, b in zip(crops[::2], crops[1::2], strict=True)) < 10

    @pytest.mark.parametrize("workers", [0, 2])
    def test_any_stretch_of_a_run_is_the_same_with_any_number_of_workers(self, workers: int, tmp_path: Path) -> None:
        root = make_dataset(tmp_path / "set")
        whole = collect(batches_of(root), 0, 7)
        stretch = collect(batches_of(root, workers=workers), 4, 7)
        assert all(torch.equal(a, b) for a, b in zip(whole[8:], stretch, strict=True))

    def test_the_seed_matters_and_the_global_generators_do_not(self, tmp_path: Path) -> None:
        root = make_dataset(tmp_path / "set")
        torch.manual_seed(1)
        state = torch.get_rng_state()
        first = collect(batches_of(root), 0, 3)
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(2)
        assert all(torch.equal(a, b) for a, b in zip(first, collect(batches_of(root), 0, 3), strict=True))
        assert not all(torch.equal(a, b) for a, b in zip(first, collect(batches_of(root, seed=4), 0, 3), strict=True))

    def test_paired_images_are_cropped_and_mirrored_alike(self, tmp_path: Path) -> None:
        root = make_dataset(tmp_path / "set", count_A=3, count_B=3)
        for path in (root / "trainA").iterdir():
            (root / "trainB" / path.name).write_bytes(path.read_bytes())
        for batch in batches_of(root, pairing="paired").iterate(0, 6):
            assert torch.equal(batch.images["A"], batch.images["B"])

    def test_a_bad_file_is_named_and_another_takes_its_place(self, tmp_path: Path) -> None:
        root = make_dataset(tmp_path / "set")
        (root / "trainA" / "02.png").write_text("broken")
        bad = [batch.bad_files for batch in batches_of(root).iterate(0, 3)]
        assert {path for found in bad for path in found} == {str(root / "trainA" / "02.png")}
        assert "is no image" in next(why for found in bad for why in found.values())

    def test_a_bad_file_takes_its_partner_with_it(self, tmp_path: Path) -> None:
        root = make_dataset(tmp_path / "set", count_A=3, count_B=3)
        for path in (root / "trainA").iterdir():
            (root / "trainB" / path.name).write_bytes(path.read_bytes())
        (root / "trainB" / "01.png").write_text("broken")
        for batch in batches_of(root, pairing="paired").iterate(0, 6):
            assert torch.equal(batch.images["A"], batch.images["B"])

    @pytest.mark.parametrize("workers", [0, 1])
    def test_a_domain_without_one_readable_image_ends_in_one_sentence(self, workers: int, tmp_path: Path) -> None:
        root = make_dataset(tmp_path / "set", count_B=2)
        for path in (root / "trainB").iterdir():
            path.write_text("broken")
        with pytest.raises(DataError, match=r"domain B: no image can be read; the last one, .*png, is no image"):
            list(batches_of(root, workers=workers).iterate(0, 1))

    def test_datasets_are_plain_values(self) -> None:
        assert Dataset((Path("a"),), (Path("b"),)) == Dataset((Path("a"),), (Path("b"),))


@pytest.mark.parametrize("pairing", ["paired", "unpaired"])
def test_side_by_side_images_are_both_domains(pairing, tmp_path: Path) -> None:
    """The left half is red all over, the right one blue; what is in the middle belongs to neither."""
    (tmp_path / "train").mkdir()
    for number in range(3):
        both = Image.new("RGB", (40, 20), (200 + number, 0, 0))
        both.paste((0, 0, 200 + number), (20, 0, 40, 20))
        both.save(tmp_path / "train" / f"{number}.png")
    seen = set()
    for batch in batches_of(tmp_path, pairing=pairing).iterate(0, 12):
        pixels = {domain: ((images[0] + 1) * 127.5).round().int() for domain, images in batch.images.items()}
        assert pixels["A"][1:].max() == pixels["B"][:2].max() == 0
        seen.add((int(pixels["A"][0].min()), int(pixels["B"][2].min())))
    paired = {(200 + number, 200 + number) for number in range(3)}
    assert seen == paired if pairing == "paired" else seen - paired


def test_sequential_sets_show_every_image_once_an_epoch(tmp_path: Path) -> None:
    for folder, count in (("trainA", 2), ("trainB", 6)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            Image.new("RGB", (20, 20), (number, number, number)).save(tmp_path / folder / f"{number}.png")
    shown = [
        tuple(int(((batch.images[x][0] + 1) * 127.5).round().max()) for x in "AB")
        for batch in batches_of(tmp_path, pairing="sequential", batch_size=1).iterate(0, 6)
    ]
    assert sorted(b for _, b in shown) == list(range(6))
    assert sorted(a for a, _ in shown) == [0, 0, 0, 1, 1, 1]


def test_a_script_without_a_guard_is_told_what_to_do(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "set")
    script = tmp_path / "script.py"
    script.write_text(
        "from gantoolkit.data import TrainingBatches, open_dataset\n"
        "from gantoolkit.recipes.settings import DataSettings\n"
        f"dataset = open_dataset({str(root)!r})\n"
        "batches = TrainingBatches(dataset, DataSettings(), batch_size=1, seed=0, workers=1)\n"
        "next(batches.iterate(0, 1))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert 'put that under `if __name__ == "__main__":`, or take workers = 0' in done.stderr.splitlines()[-1]
