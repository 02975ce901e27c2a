"""Images with other bit depths and channels: translations keep the meaning of the values in a file."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from _helpers.small import make_image
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import gantoolkit
from gantoolkit.cli.app import main
from gantoolkit.data.encoding import PICTURE, Encoding
from gantoolkit.data.images import ImageFile
from gantoolkit.data.pixels import read_pixel_size, read_pixels, resize_pixels
from gantoolkit.data.survey import survey
from gantoolkit.data.writing import supported_suffixes, write_pixels
from gantoolkit.errors import DataError, RecipeError
from gantoolkit.inference import Translator, translate_files
from gantoolkit.inference.sources import open_sources
from gantoolkit.inference.targets import plan_targets
from gantoolkit.recipes import Recipe, cyclegan
from gantoolkit.runs import LoadedGenerator

DEEP = Encoding(1, "16-bit")


def random_values(shape: tuple[int, ...], encoding: Encoding, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if encoding.bits:
        return rng.integers(0, int(encoding.high) + 1, shape).astype(encoding.dtype)
    return rng.uniform(encoding.low, encoding.high, shape).astype(np.float32)


class Identity(nn.Identity):
    size_multiple = 1


def identity_translator(**changes: object) -> Translator:
    """A translator whose network returns its input."""
    recipe = cyclegan(identity_weight=0.0).swap({f"data.{name}": value for name, value in changes.items()})
    return Translator(LoadedGenerator(Identity(), "A2B", recipe, step=0))


class TestEncoding:
    @pytest.mark.parametrize("encoding", [PICTURE, DEEP, Encoding(1, (0.0, 4095.0)), Encoding(1, (-32768.0, 32767.0))])
    def test_integers_survive_conversion_to_floats_and_back(self, encoding: Encoding) -> None:
        integers = np.arange(encoding.low, encoding.high + 1).astype(encoding.dtype).reshape(1, -1, 1)
        floats = encoding.to_floats(integers)
        assert floats.dtype == torch.float32
        assert floats[0, 0, 0] == -1
        assert floats[0, 0, -1] == 1
        assert np.array_equal(np.rint(encoding.from_floats(floats)), integers)

    @given(low=st.floats(-1e6, 1e6, width=32), width=st.floats(0.125, 1e6, width=32), share=st.floats(0, 1))
    def test_other_values_survive_to_a_millionth_of_their_range(self, low, width, share) -> None:
        encoding = Encoding(1, (low, low + width))
        value = np.full((1, 1, 1), low + share * width)
        restored = encoding.from_floats(encoding.to_floats(value))
        assert abs(float(restored[0, 0, 0]) - value[0, 0, 0]) <= 1e-6 * width + 1e-7 * abs(low + width) + 1e-7 * abs(
            low
        )

    def test_values_outside_the_range_are_clipped(self) -> None:
        assert Encoding(1, "16-bit").from_floats(torch.tensor([[[-3.0, 3.0]]])).ravel().tolist() == [0, 65535]
        assert Encoding(1, (2.0, 4.0)).from_floats(torch.tensor([[[-3.0, 3.0]]])).ravel().tolist() == [2, 4]

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ([1.0, 0.0], r"data\.range_A: \[1\.0, 0\.0\] is not a range; the first value is mapped to -1"),
            ([1.0], r"'range_A' cannot be \[1\.0\]; it takes '8-bit' or '16-bit' or tuple\[float, float\]"),
            ("12-bit", "'range_A' cannot be '12-bit'"),
            ([True, 2], "'range_A' cannot be"),
            ([0, 1e300], r"data\.range_A: \[0\.0, 1e\+300\] is not a range"),
            ([0, 10**400], "'range_A' cannot be"),
            ([1.0, 1.0 + 1e-9], "two values that differ in float32"),
        ],
    )
    def test_invalid_range_is_rejected(self, value: object, message: str) -> None:
        with pytest.raises(RecipeError, match=message):
            cyclegan().swap({"data.range_A": value})

    def test_recipe_stores_the_range(self) -> None:
        recipe = cyclegan().swap({"data.range_A": [0, 5.5], "data.range_B": "16-bit"})
        assert Recipe.from_toml(recipe.to_toml()).data == recipe.data
        assert recipe.diff(cyclegan()) == {
            "data.range_A": ((0.0, 5.5), "8-bit"),
            "data.range_B": ("16-bit", "8-bit"),
        }


ENCODINGS = [
    Encoding(channels, values)
    for values in ("8-bit", "16-bit", (-2.5, 40.0), (0.0, 4095.0))
    for channels in (1, 2, 3, 4, 7)
]


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
def test_written_values_are_read_back(encoding: Encoding, tmp_path: Path) -> None:
    pixels = random_values((13, 18, encoding.channels), encoding)
    for suffix in supported_suffixes(encoding):
        if suffix in (".jpg", ".jpeg"):
            continue
        path = tmp_path / f"image{suffix}"
        write_pixels(pixels, path, encoding)
        exact = encoding.bits or suffix != ".png"
        read = read_pixels(path, encoding)
        assert read.dtype == encoding.dtype
        assert np.array_equal(read, pixels if exact else np.rint(pixels))
        assert read_pixel_size(path, encoding) == (18, 13)


class TestOtherPrograms:
    """Other programs read the files that gantoolkit writes."""

    def test_pillow(self, tmp_path: Path) -> None:
        for encoding, suffix in ((DEEP, ".png"), (DEEP, ".tif"), (Encoding(1, (-1.0, 9.0)), ".tif")):
            pixels = random_values((9, 7, 1), encoding)
            write_pixels(pixels, tmp_path / f"image{suffix}", encoding)
            with Image.open(tmp_path / f"image{suffix}") as image:
                assert np.array_equal(np.asarray(image), pixels[..., 0])

    def test_tifffile_and_numpy(self, tmp_path: Path) -> None:
        encoding = Encoding(5, (0.0, 1.0))
        pixels = random_values((9, 7, 5), encoding)
        write_pixels(pixels, tmp_path / "image.tif", encoding)
        write_pixels(pixels, tmp_path / "image.npy", encoding)
        assert np.array_equal(tifffile.imread(tmp_path / "image.tif"), pixels)
        assert np.array_equal(np.load(tmp_path / "image.npy"), pixels)

    def test_ffmpeg(self, tmp_path: Path) -> None:
        av = pytest.importorskip("av", reason="the extra `video` is not installed")
        pixels = random_values((16, 24, 3), Encoding(3, "16-bit"))
        write_pixels(pixels, tmp_path / "image.png", Encoding(3, "16-bit"))
        with av.open(tmp_path / "image.png") as file:
            frame = next(file.decode(video=0))
            assert frame.format.name == "rgb48be"
            assert np.array_equal(frame.to_ndarray().astype(np.uint16), pixels)


class TestReading:
    def test_white_stays_white(self, tmp_path: Path) -> None:
        Image.fromarray(np.array([[0, 1, 255]], np.uint8)).save(tmp_path / "shallow.png")
        assert read_pixels(tmp_path / "shallow.png", DEEP).ravel().tolist() == [0, 257, 65535]
        tifffile.imwrite(tmp_path / "deep.tif", np.array([[0, 257, 65535]], np.uint16))
        assert read_pixels(tmp_path / "deep.tif", Encoding(1)).ravel().tolist() == [0, 1, 255]

    def test_values_of_a_range_are_kept(self, tmp_path: Path) -> None:
        encoding = Encoding(1, (0.0, 4095.0))
        tifffile.imwrite(tmp_path / "raw.tif", np.array([[0, 7, 4095]], np.uint16))
        Image.fromarray(np.array([[0, 7, 255]], np.uint8)).save(tmp_path / "small.png")
        assert read_pixels(tmp_path / "raw.tif", encoding).ravel().tolist() == [0, 7, 4095]
        assert read_pixels(tmp_path / "small.png", encoding).ravel().tolist() == [0, 7, 255]

    def test_values_with_few_bits_are_not_scaled_in_a_range(self, tmp_path: Path) -> None:
        encoding = Encoding(1, (0.0, 15.0))
        signature = b"\x89PNG\r\n\x1a\n"

        def chunk(kind: bytes, content: bytes) -> bytes:
            return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

        for bits, row, expected in ((4, b"\x01\xf0", [0, 1, 15]), (2, b"\x1c", [0, 1, 3]), (1, b"\x40", [0, 1, 0])):
            content = chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 1, bits, 0, 0, 0, 0))
            content += chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
            (tmp_path / f"{bits}.png").write_bytes(signature + content)
            assert read_pixels(tmp_path / f"{bits}.png", encoding).ravel().tolist() == expected
            scaled = read_pixels(tmp_path / f"{bits}.png", Encoding(1, "16-bit")).ravel().tolist()
            assert scaled == [round(value * 65535 / (2**bits - 1)) for value in expected]
        Image.fromarray(np.array([[False, True, True]])).save(tmp_path / "1.tif")
        assert read_pixels(tmp_path / "1.tif", encoding).ravel().tolist() == [0, 1, 1]

    def test_pgm_with_other_highest_level_is_rejected_in_a_range(self, tmp_path: Path) -> None:
        (tmp_path / "x.pgm").write_bytes(b"P5 2 1 100\n" + bytes([50, 100]))
        with pytest.raises(DataError, match=r"its highest level is 100; save it as PNG, TIFF or \.npy"):
            read_pixels(tmp_path / "x.pgm", Encoding(1, (0.0, 255.0)))
        (tmp_path / "y.pgm").write_bytes(b"P5 2 1 255\n" + bytes([50, 100]))
        assert read_pixels(tmp_path / "y.pgm", Encoding(1, (0.0, 255.0))).ravel().tolist() == [50, 100]

    def test_8_bit_arrays_are_read_as_pictures(self, tmp_path: Path) -> None:
        np.save(tmp_path / "gray.npy", np.full((4, 5), 7, np.uint8))
        assert read_pixels(tmp_path / "gray.npy", PICTURE).tolist() == np.full((4, 5, 3), 7).tolist()
        np.save(tmp_path / "red.npy", np.full((4, 5, 3), [255, 0, 0], np.uint8))
        assert set(read_pixels(tmp_path / "red.npy", Encoding(1)).ravel().tolist()) == {76}

    def test_16_bit_gray_and_color_are_converted(self, tmp_path: Path) -> None:
        red = np.full((4, 4, 3), [65535, 0, 0], np.uint16)
        (tmp_path / "red.png").write_bytes(imagecodecs.png_encode(red))
        assert set(read_pixels(tmp_path / "red.png", DEEP).ravel().tolist()) == {round(65535 * 0.299)}
        tifffile.imwrite(tmp_path / "gray.tif", np.full((4, 4), 1234, np.uint16))
        assert set(read_pixels(tmp_path / "gray.tif", Encoding(3, "16-bit")).ravel().tolist()) == {1234}

    def test_tiff_with_inverted_levels(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "x.tif", np.array([[0, 65535, 5]], np.uint16), photometric="miniswhite")
        assert read_pixels(tmp_path / "x.tif", DEEP).ravel().tolist() == [65535, 0, 65530]

    def test_tiff_planes_are_channels(self, tmp_path: Path) -> None:
        values = random_values((6, 9, 5), Encoding(5, (0.0, 1.0)))
        planes = np.moveaxis(values, 2, 0)
        tifffile.imwrite(tmp_path / "x.tif", planes, planarconfig="separate", photometric="minisblack")
        assert np.array_equal(read_pixels(tmp_path / "x.tif", Encoding(5, (0.0, 1.0))), values)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_tiff_orientation_is_applied_as_by_pillow(self, orientation: int, tmp_path: Path) -> None:
        values = random_values((6, 9, 1), DEEP)[..., 0]
        tifffile.imwrite(tmp_path / "deep.tif", values, extratags=[(274, 3, 1, orientation, True)])
        shallow = (values // 257).astype(np.uint8)
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(shallow).save(tmp_path / "shallow.png", exif=exif)
        assert np.array_equal(
            read_pixels(tmp_path / "deep.tif", DEEP) // 257, read_pixels(tmp_path / "shallow.png", Encoding(1))
        )

    def test_mismatch_with_the_encoding_is_explained(self, tmp_path: Path) -> None:
        def write(name: str, values: np.ndarray) -> Path:
            np.save(tmp_path / name, values)
            return tmp_path / f"{name}.npy"

        unit = Encoding(1, (0.0, 1.0))
        for path, encoding, message in (
            (
                write("wide", np.zeros((4, 4, 2))),
                unit,
                r"holds 2 bands of float64; images of its domain are 1 channel, values",
            ),
            (
                write("large", np.full((4, 4), 2.0)),
                unit,
                "contains values from 2 to 2; the range of its domain is 0 to 1",
            ),
            (write("nan", np.full((4, 4), np.nan)), unit, "contains NaN values; the range of its domain is 0 to 1"),
            (
                write("complex", np.zeros((4, 4), complex)),
                unit,
                "has dtype complex128; an image has integers or floats",
            ),
            (
                write("float", np.zeros((4, 4))),
                DEEP,
                "holds 1 band of float64, whose type does not define which value is white; a recipe with data",
            ),
            (write("line", np.zeros(4)), unit, r"contains an array \(4,\); an image is"),
            (write("empty", np.zeros((0, 4))), unit, r"contains an array \(0, 4\)"),
        ):
            with pytest.raises(DataError, match=message) as caught:
                read_pixels(path, encoding)
            assert str(caught.value).startswith(str(path))

    def test_hostile_files_are_rejected_before_decoding(self, tmp_path: Path) -> None:
        pickled = tmp_path / "pickle.npy"
        np.save(pickled, np.array([{"a": 1}], object), allow_pickle=True)
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 20, 1 << 20)}
        )
        (tmp_path / "bomb.npy").write_bytes(header.getvalue())
        intact = tmp_path / "intact.tif"
        tifffile.imwrite(intact, np.zeros((40, 40), np.float32), compression="zlib")
        (tmp_path / "cut.tif").write_bytes(intact.read_bytes()[:120])
        for name in ("pickle.npy", "bomb.npy", "cut.tif"):
            with pytest.raises(DataError, match=name):
                read_pixels(tmp_path / name, Encoding(1, (0.0, 1.0)))

    def test_format_that_cannot_store_an_image_is_rejected(self, tmp_path: Path) -> None:
        for encoding, name in ((Encoding(7, "16-bit"), "x.png"), (DEEP, "x.jpg"), (Encoding(1, (-1.0, 1.0)), "x.png")):
            with pytest.raises(DataError, match="cannot store an image of"):
                write_pixels(random_values((4, 4, encoding.channels), encoding), tmp_path / name, encoding)
            assert not (tmp_path / name).exists()


@given(st.sampled_from(ENCODINGS), st.integers(1, 30), st.integers(1, 30), st.integers(0, 99))
def test_resizing_stays_in_range_and_keeps_flat_images_flat(encoding, width, height, seed) -> None:
    pixels = random_values((11, 17, encoding.channels), encoding, seed)
    resized = resize_pixels(pixels, (width, height), encoding)
    assert resized.shape == (height, width, encoding.channels)
    assert resized.dtype == encoding.dtype
    assert resized.min() >= np.float32(encoding.low)
    assert resized.max() <= np.float32(encoding.high)
    flat = np.broadcast_to(pixels[:1, :1], pixels.shape).copy()
    assert np.allclose(resize_pixels(flat, (width, height), encoding), flat[0, 0], rtol=1e-5)


class TestTranslating:
    @pytest.mark.parametrize("tile", [None, 16])
    @pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
    def test_identity_network_returns_the_values(self, encoding: Encoding, tile: int | None) -> None:
        translator = identity_translator(
            channels_A=encoding.channels, channels_B=encoding.channels, range_A=encoding.range, range_B=encoding.range
        )
        translator.memory.tile = tile
        pixels = random_values((30, 21, encoding.channels), encoding)
        (translation,) = translator.translate_pixels([translator.read(pixels)])
        assert translation.dtype == encoding.dtype
        np.testing.assert_allclose(
            translation, pixels, rtol=0, atol=0 if encoding.bits else 1e-6 * (encoding.high - encoding.low)
        )

    def test_source_and_target_may_have_different_ranges(self) -> None:
        translator = identity_translator(channels_A=1, channels_B=1, range_A=[0.0, 10.0], range_B="16-bit")
        (translation,) = translator.translate_pixels([translator.read(np.array([[0.0, 5.0, 10.0]]))])
        assert translation.ravel().tolist() == [0, 32768, 65535]
        with pytest.raises(
            DataError, match="A2B produces images of gray, 16-bit, not 8-bit pictures; use translate_pixels"
        ):
            translator(np.zeros((4, 4)))

    def test_pil_image_is_read_like_its_file(self, tmp_path: Path) -> None:
        picture = make_image(3).convert("P")
        picture.save(tmp_path / "x.png")
        translator = identity_translator(channels_A=1, channels_B=1, range_A="16-bit", range_B="16-bit")
        assert np.array_equal(translator.read(picture), translator.read(tmp_path / "x.png"))
        for shape in ((), (4,), (2, 2, 1, 1)):
            with pytest.raises(DataError, match="contains an array"):
                translator.read(np.zeros(shape, np.uint16))

    def test_translations_keep_the_format_if_it_can_store_them(self, tmp_path: Path) -> None:
        for name in ("a.tif", "b.npy", "c.png", "d.jpg"):
            (tmp_path / name).touch()
        with open_sources([tmp_path]) as sources:

            def suffixes(**options: Any) -> list[str]:
                return [path.suffix for path in plan_targets(sources, tmp_path / "out", **options).values()]

        assert suffixes(encoding=PICTURE) == [".png", ".png", ".png", ".jpg"]
        assert suffixes(encoding=DEEP) == [".tif", ".npy", ".png", ".png"]
        assert suffixes(encoding=Encoding(1, (0.0, 1.0))) == [".tif", ".npy", ".tif", ".tif"]
        assert suffixes(encoding=Encoding(6)) == [".tif", ".npy", ".tif", ".tif"]
        with pytest.raises(
            DataError, match=r"--form jpg: cannot store images of gray, 16-bit; use one of \.png, \.tif, \.tiff, \.npy"
        ):
            suffixes(encoding=DEEP, form="jpg")

    def test_bad_file_is_named_and_the_others_are_translated(self, tmp_path: Path) -> None:
        translator = identity_translator(channels_A=1, channels_B=1, range_A=[0.0, 1.0], range_B=[0.0, 1.0])
        folder = tmp_path / "in"
        folder.mkdir()
        np.save(folder / "good.npy", np.full((9, 9), 0.25))
        np.save(folder / "bad.npy", np.full((9, 9), 7.0))
        with open_sources([folder]) as sources:
            targets = plan_targets(sources, tmp_path / "out", encoding=translator.generator.target)
        results = list(translate_files(translator, targets))
        assert [result.problem.partition(":")[0] for result in results] == [str(folder / "bad.npy"), ""]
        np.testing.assert_allclose(np.load(tmp_path / "out" / "good.npy"), 0.25)


@pytest.mark.parametrize("cache", ["none", "file", "device"])
def test_run_on_floats_and_16_bits_is_the_same_with_every_cache(
    cache: str, tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANTOOLKIT_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for domain in "AB":
        (tmp_path / "set" / f"train{domain}").mkdir(parents=True)
    for number in range(3):
        np.save(tmp_path / "set" / "trainA" / f"{number}.npy", rng.uniform(-1, 3, (24, 20, 5)))
        deep = rng.integers(0, 65536, (22, 26)).astype(np.uint16)
        tifffile.imwrite(tmp_path / "set" / "trainB" / f"{number}.tif", deep)
    recipe = tiny.swap(
        {
            "data.channels_A": 5,
            "data.range_A": [-1, 3],
            "data.channels_B": 1,
            "data.range_B": "16-bit",
            "identity_weight": 0.0,
        }
    )
    run = gantoolkit.train(recipe, tmp_path / "set", tmp_path / "run", device="cpu", stop_at=4, cache=cache)
    uncached = gantoolkit.train(recipe, tmp_path / "set", tmp_path / "uncached", device="cpu", stop_at=4, cache="none")
    weights, expected = (load_file(trained.path / "generators" / "A2B.safetensors") for trained in (run, uncached))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert list((tmp_path / "run" / "samples").iterdir())
    translator = run.translator("A2B", device="cpu")
    assert (str(translator.generator.source), str(translator.generator.target)) == (
        "5 channels, values from -1 to 3",
        "gray, 16-bit",
    )
    out = tmp_path / "out"
    assert (
        main(["translate", str(run.path), str(tmp_path / "set" / "trainA"), "--out", str(out), "--direction", "A2B"])
        == 0
    )
    for path in sorted((tmp_path / "set" / "trainA").iterdir()):
        (translation,) = translator.translate_pixels([translator.read(path)])
        assert np.load(out / path.name).dtype == np.uint16
        # A batch of three images and a single image may differ in the last bits.
        np.testing.assert_allclose(np.load(out / path.name).astype(int), translation[..., 0], rtol=0, atol=2)


def test_missing_dependency_is_named(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((4, 4), np.float32))
    program = (
        "import sys; sys.modules['tifffile'] = None\n"
        "from gantoolkit.data.encoding import Encoding\n"
        "from gantoolkit.data.pixels import read_pixels\n"
        f"read_pixels({str(tmp_path / 'x.tif')!r}, Encoding(1, (0.0, 1.0)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "this TIFF file needs the extra `depth`: pip install gantoolkit[depth]" in done.stderr


def test_halves_of_any_depth(tmp_path: Path) -> None:
    values = random_values((5, 8, 1), DEEP)
    write_pixels(values, tmp_path / "both.png", DEEP)
    assert np.array_equal(read_pixels(ImageFile(tmp_path / "both.png", "right"), DEEP), values[:, 4:])
    make_image(0, (7, 5)).save(tmp_path / "odd.png")
    with pytest.raises(DataError, match="is 7 pixels wide"):
        read_pixels(ImageFile(tmp_path / "odd.png", "left"), PICTURE)


@pytest.mark.slow(reason="writes and reads two images of 24 megapixels: about 10 s")
def test_mean_of_a_large_bright_picture_is_exact(tmp_path: Path) -> None:
    for domain in "AB":
        (tmp_path / f"train{domain}").mkdir()
        Image.new("L", (6000, 4000), 200).save(tmp_path / f"train{domain}" / f"{domain}.png")
    assert survey(tmp_path).domains["trainA"].mean == (200, 200, 200)


def test_data_set_is_checked_with_the_encoding_of_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for domain in "AB":
        (tmp_path / "set" / f"train{domain}").mkdir(parents=True)
        for number in range(2):
            np.save(tmp_path / "set" / f"train{domain}" / f"{number}.npy", rng.uniform(-1, 3, (40, 36, 5)))
    recipe = tmp_path / "five.toml"
    recipe.write_text(
        'recipe = "cyclegan"\n[data]\nchannels_A = 5\nchannels_B = 5\nrange_A = [-1.0, 3.0]\nrange_B = [-1.0, 3.0]\n'
    )
    folder, sheet = str(tmp_path / "set"), tmp_path / "sheet.png"
    assert main(["data", "check", folder, "--recipe", str(recipe)]) == 0
    assert main(["data", "stats", folder, "--recipe", str(recipe), "--sheet", str(sheet)]) == 0
    assert "0.99" in capsys.readouterr().out
    with Image.open(sheet) as picture:
        assert picture.mode == "RGB"
    np.save(tmp_path / "set" / "trainA" / "2.npy", np.full((40, 36, 5), 9.0))
    assert main(["data", "check", folder, "--recipe", str(recipe)]) == 3
    assert "have values from 9 to 9, outside of the range -1 to 3, such as" in capsys.readouterr().out
    assert main(["data", "check", folder]) == 2
    assert "holds 5 bands of float64; images of its domain are RGB, 8-bit" in capsys.readouterr().out
