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
    from_tensor,
    images,
    open_dataset,
    read_image,
    to_tensor,
    write_image,
)
from gantoolkit.data.augmentation import check_crop_fits, crop_pixels, draw_windows, prepare, resize
from gantoolkit.data.encoding import PICTURE, Encoding
from gantoolkit.data.images import ImageFile
from gantoolkit.errors import DataError
from gantoolkit.recipes.settings import DataSettings


def load_images(batches: TrainingBatches, start: int, stop: int) -> list[torch.Tensor]:
    return [batch.images[domain] for batch in batches.iterate(start, stop) for domain in "AB"]


def random_crop(picture: Image.Image, settings: DataSettings, seed: int) -> torch.Tensor:
    encoding = Encoding(len(picture.getbands()))
    pixels = resize(np.atleast_3d(np.asarray(picture)), settings, encoding)
    size = (pixels.shape[1], pixels.shape[0])
    check_crop_fits(size, settings)
    (window,) = draw_windows([size], settings, random.Random(seed))
    return crop_pixels(pixels, window, settings, encoding)


def make_batches(root: Path, **options) -> TrainingBatches:
    dataset = open_dataset(root, pairing=options.pop("pairing", "unpaired"))
    settings = DataSettings(load_size=20, crop_size=16, **options.pop("settings", {}))
    return TrainingBatches(dataset, settings, **{"batch_size": 2, "seed": 3, **options})


class TestReading:
    def test_pixels_survive_conversion_to_tensors_and_back(self) -> None:
        every_value = np.arange(256, dtype=np.uint8).reshape(16, 16)
        picture = Image.fromarray(np.stack([every_value, every_value[::-1], every_value.T], axis=-1))
        tensor = to_tensor(picture)
        assert (tensor.min(), tensor.max()) == (-1, 1)
        assert np.array_equal(np.asarray(from_tensor(tensor)), np.asarray(picture))

    def test_values_are_rounded_and_clipped(self) -> None:
        levels = torch.tensor([-1.5, -1 + 0.6 / 127.5, -1 + 1.4 / 127.5, 1 - 0.4 / 127.5, 3.0])
        assert np.asarray(from_tensor(levels.reshape(1, 1, 5))).tolist() == [[0, 1, 1, 255, 255]]

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_orientation_is_applied(self, orientation: int, tmp_path: Path) -> None:
        upright = np.zeros((6, 4, 3), dtype=np.uint8)
        upright[0, 0], upright[0, 3], upright[5, 0] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
        # What a rotated camera stores: the inverse of the operation that the tag describes.
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

    def test_gray_becomes_three_equal_channels_and_color_becomes_luminance(self, tmp_path: Path) -> None:
        Image.fromarray(np.array([[0, 128, 255]], dtype=np.uint8)).save(tmp_path / "gray.png")
        assert np.asarray(read_image(tmp_path / "gray.png", 3)).tolist() == [[[0] * 3, [128] * 3, [255] * 3]]
        Image.new("RGB", (1, 1), (255, 0, 0)).save(tmp_path / "red.png")
        assert np.asarray(read_image(tmp_path / "red.png", 1)).tolist() == [[76]]

    def test_transparent_pixels_are_composited_on_white(self, tmp_path: Path) -> None:
        layer = Image.fromarray(np.array([[[9, 9, 9, 0], [0, 0, 0, 255], [0, 0, 0, 51]]], dtype=np.uint8))
        layer.save(tmp_path / "layer.png")
        assert np.asarray(read_image(tmp_path / "layer.png")).tolist() == [[[255] * 3, [0] * 3, [204] * 3]]
        palette = Image.new("P", (2, 1))
        palette.putpalette([10, 20, 30, 40, 50, 60])
        palette.putpixel((1, 0), 1)
        palette.save(tmp_path / "palette.png", transparency=0)
        assert np.asarray(read_image(tmp_path / "palette.png")).tolist() == [[[255] * 3, [40, 50, 60]]]

    def test_16_bits_are_scaled_to_8(self, tmp_path: Path) -> None:
        Image.fromarray(np.array([[0, 257, 32896, 65535]], dtype=np.uint16)).save(tmp_path / "deep.png")
        assert np.asarray(read_image(tmp_path / "deep.png", 1)).tolist() == [[0, 1, 128, 255]]

    def test_cmyk_becomes_rgb(self, tmp_path: Path) -> None:
        Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "ink.jpg", quality=100)
        red, green, blue = np.asarray(read_image(tmp_path / "ink.jpg"))[0, 0].tolist()
        assert red > 200
        assert max(green, blue) < 60

    def test_unreadable_files_are_named(self, tmp_path: Path) -> None:
        (tmp_path / "text.jpg").write_text("not a picture")
        with pytest.raises(DataError, match=r"text\.jpg: is not a readable image"):
            read_image(tmp_path / "text.jpg")
        make_image(0, (200, 200)).save(tmp_path / "whole.jpg")
        content = (tmp_path / "whole.jpg").read_bytes()
        (tmp_path / "half.jpg").write_bytes(content[: len(content) // 2])
        with pytest.raises(DataError, match=r"half\.jpg: is damaged or cannot be read"):
            read_image(tmp_path / "half.jpg")
        (tmp_path / "empty.jpg").touch()
        with pytest.raises(DataError, match=r"empty\.jpg: is not a readable image"):
            read_image(tmp_path / "empty.jpg")
        with pytest.raises(DataError, match=r"none\.jpg: no such file"):
            read_image(tmp_path / "none.jpg")

    def test_decompression_bomb_is_rejected_before_decoding(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_image(0).save(tmp_path / "bomb.png")
        monkeypatch.setattr(images, "MAX_PIXELS", 100)
        monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("the image was decoded"))
        with pytest.raises(DataError, match="40×36 pixels are more than the 100 allowed"):
            read_image(tmp_path / "bomb.png")

    def test_writing_is_atomic(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(DataError, match="cannot be written"):
            write_image(make_image(0), tmp_path / "file" / "below.png")
        write_image(make_image(0), tmp_path / "new" / "deep" / "a.png")
        assert [path.name for path in (tmp_path / "new" / "deep").iterdir()] == ["a.png"]


class TestAugmentation:
    @given(width=st.integers(20, 60), height=st.integers(20, 60), seed=st.integers(0, 2**16))
    @pytest.mark.parametrize("resize", ["square", "shorter_side", "none"])
    def test_crops_have_the_crop_size_and_the_range_of_images(self, resize, width, height, seed) -> None:
        settings = DataSettings(resize=resize, load_size=20, crop_size=16)
        picture = make_image(seed, (width, height))
        for crop in (random_crop(picture, settings, seed), prepare(np.asarray(picture), settings, PICTURE)):
            assert crop.shape == (3, 16, 16)
            assert crop.abs().max() <= 1

    def test_every_crop_position_and_both_flips_occur(self) -> None:
        ramp = Image.fromarray(np.tile(np.arange(20, dtype=np.uint8) * 10, (20, 1)))
        settings = DataSettings(load_size=20, crop_size=16)
        crops = [random_crop(ramp, settings, seed) for seed in range(300)]
        lefts = {round((crop[0, 0, 0].item() + 1) * 12.75) for crop in crops}
        assert lefts == {0, 1, 2, 3, 4, 15, 16, 17, 18, 19}
        flipped = sum(crop[0, 0, 0] > crop[0, 0, -1] for crop in crops) / 300
        assert 0.4 < flipped < 0.6

    def test_square_resizing_ignores_the_aspect_ratio_and_is_bicubic(self) -> None:
        picture = make_image(1, (60, 30))
        settings = DataSettings(load_size=16, crop_size=16, flip=False)
        expected = to_tensor(picture.resize((16, 16), Image.Resampling.BICUBIC))
        assert torch.equal(random_crop(picture, settings, 0), expected)

    def test_too_small_image_is_rejected_with_a_remedy(self) -> None:
        with pytest.raises(
            DataError, match=r'is 10×40, smaller than data\.crop_size 16; set data\.resize = "shorter_side"'
        ):
            random_crop(make_image(0, (10, 40)), DataSettings(resize="none", crop_size=16), 0)


class TestSampling:
    def test_an_epoch_is_as_long_as_the_larger_domain(self, tmp_path: Path) -> None:
        assert make_batches(make_dataset(tmp_path / "a", count_A=5, count_B=3)).steps_per_epoch == 3
        assert make_batches(make_dataset(tmp_path / "b", count_A=2, count_B=7), batch_size=1).steps_per_epoch == 7

    def test_epochs_shuffle_A_and_draw_B_with_replacement(self, tmp_path: Path) -> None:
        root = tmp_path / "set"
        for domain, count in (("A", 8), ("B", 8)):
            (root / f"train{domain}").mkdir(parents=True)
            for number in range(count):
                Image.new("L", (16, 16), 10 * number).save(root / f"train{domain}" / f"{number}.png")
        batches = TrainingBatches(open_dataset(root), DataSettings(load_size=16, crop_size=16), batch_size=1, seed=0)
        numbers = {domain: [] for domain in "AB"}
        for batch in batches.iterate(0, 16):
            for domain in "AB":
                numbers[domain].append(round((batch.images[domain].mean().item() + 1) * 12.75))
        first, second = numbers["A"][:8], numbers["A"][8:]
        assert sorted(first) == sorted(second) == list(range(8))
        assert first != second
        assert len(set(numbers["B"][:8])) < 8

    def test_crops_differ_between_epochs_and_between_A_and_B(self, tmp_path: Path) -> None:
        """A cache behind the augmentation would repeat the same crop in every epoch."""
        root = make_dataset(tmp_path / "set", count_A=1, count_B=1)
        (root / "trainB" / "00.png").write_bytes((root / "trainA" / "00.png").read_bytes())
        crops = load_images(make_batches(root, batch_size=1), 0, 30)
        assert len({tuple(crop.flatten().tolist()) for crop in crops[::2]}) > 10
        assert sum(torch.equal(a, b) for a, b in zip(crops[::2], crops[1::2], strict=True)) < 10

    @pytest.mark.parametrize("workers", [0, 2])
    def test_batches_do_not_depend_on_the_first_step_and_the_workers(self, workers: int, tmp_path: Path) -> None:
        root = make_dataset(tmp_path / "set")
        from_start = load_images(make_batches(root), 0, 7)
        from_middle = load_images(make_batches(root, workers=workers), 4, 7)
        assert all(torch.equal(a, b) for a, b in zip(from_start[8:], from_middle, strict=True))

    def test_batches_depend_on_the_seed_and_not_on_global_generators(self, tmp_path: Path) -> None:
        root = make_dataset(tmp_path / "set")
        torch.manual_seed(1)
        state = torch.get_rng_state()
        first = load_images(make_batches(root), 0, 3)
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(2)
        assert all(torch.equal(a, b) for a, b in zip(first, load_images(make_batches(root), 0, 3), strict=True))
        assert not all(
            torch.equal(a, b) for a, b in zip(first, load_images(make_batches(root, seed=4), 0, 3), strict=True)
        )

    def test_pairs_are_cropped_and_flipped_alike(self, tmp_path: Path) -> None:
        root = make_dataset(tmp_path / "set", count_A=3, count_B=3)
        for path in (root / "trainA").iterdir():
            (root / "trainB" / path.name).write_bytes(path.read_bytes())
        for batch in make_batches(root, pairing="paired").iterate(0, 6):
            assert torch.equal(batch.images["A"], batch.images["B"])

    def test_bad_file_is_reported_and_replaced(self, tmp_path: Path) -> None:
        root = make_dataset(tmp_path / "set")
        (root / "trainA" / "02.png").write_text("broken")
        bad = [batch.bad_files for batch in make_batches(root).iterate(0, 3)]
        assert {path for files in bad for path in files} == {str(root / "trainA" / "02.png")}
        assert "is not a readable image" in next(reason for files in bad for reason in files.values())

    def test_bad_file_of_a_pair_skips_the_pair(self, tmp_path: Path) -> None:
        root = make_dataset(tmp_path / "set", count_A=3, count_B=3)
        for path in (root / "trainA").iterdir():
            (root / "trainB" / path.name).write_bytes(path.read_bytes())
        (root / "trainB" / "01.png").write_text("broken")
        for batch in make_batches(root, pairing="paired").iterate(0, 6):
            assert torch.equal(batch.images["A"], batch.images["B"])

    @pytest.mark.parametrize("workers", [0, 1])
    def test_domain_without_readable_images_is_an_error(self, workers: int, tmp_path: Path) -> None:
        root = make_dataset(tmp_path / "set", count_B=2)
        for path in (root / "trainB").iterdir():
            path.write_text("broken")
        with pytest.raises(
            DataError, match=r"domain B: no image can be read; the last one, .*png, is not a readable image"
        ):
            list(make_batches(root, workers=workers).iterate(0, 1))

    def test_datasets_with_equal_files_are_equal(self) -> None:
        first, second = (Dataset({"A": (ImageFile(Path("a")),), "B": (ImageFile(Path("b")),)}) for _ in range(2))
        assert first == second


@pytest.mark.parametrize("pairing", ["paired", "unpaired"])
def test_side_by_side_images_are_split(pairing, tmp_path: Path) -> None:
    """The left half of each image is red, the right half is blue."""
    (tmp_path / "train").mkdir()
    for number in range(3):
        both = Image.new("RGB", (40, 20), (200 + number, 0, 0))
        both.paste((0, 0, 200 + number), (20, 0, 40, 20))
        both.save(tmp_path / "train" / f"{number}.png")
    colors = set()
    for batch in make_batches(tmp_path, pairing=pairing).iterate(0, 12):
        pixels = {domain: ((images[0] + 1) * 127.5).round().int() for domain, images in batch.images.items()}
        assert pixels["A"][1:].max() == pixels["B"][:2].max() == 0
        colors.add((int(pixels["A"][0].min()), int(pixels["B"][2].min())))
    paired = {(200 + number, 200 + number) for number in range(3)}
    assert colors == paired if pairing == "paired" else colors - paired


def test_sequential_pairing_uses_every_image_once_an_epoch(tmp_path: Path) -> None:
    for folder, count in (("trainA", 2), ("trainB", 6)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            Image.new("RGB", (20, 20), (number, number, number)).save(tmp_path / folder / f"{number}.png")
    numbers = [
        tuple(int(((batch.images[domain][0] + 1) * 127.5).round().max()) for domain in "AB")
        for batch in make_batches(tmp_path, pairing="sequential", batch_size=1).iterate(0, 6)
    ]
    assert sorted(B for _, B in numbers) == list(range(6))
    assert sorted(A for A, _ in numbers) == [0, 0, 0, 1, 1, 1]


def test_script_without_main_guard_gets_a_helpful_error(tmp_path: Path) -> None:
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
    assert 'put that code under `if __name__ == "__main__":`, or set workers = 0' in done.stderr.splitlines()[-1]
