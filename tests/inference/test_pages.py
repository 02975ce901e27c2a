"""Files of several pages and animations are translated as a whole, or named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from _helpers.small import make_image
from _helpers.translators import open_negative
from PIL import Image

from gantoolkit.data.encoding import PICTURE, Encoding
from gantoolkit.data.pixels import count_pages, read_decoded_image, read_pages
from gantoolkit.errors import DataError
from gantoolkit.inference import FileResult, Translator, translate_files
from gantoolkit.inference.sources import open_sources
from gantoolkit.inference.targets import plan_targets

DURATIONS = [70, 100, 250, 30]


def translate(translator: Translator, path: Path, out: Path, **options: Any) -> FileResult:
    """Translate one file."""
    planning = {name: options.pop(name) for name in ("form", "keep_endings") if name in options}
    encoding, keep_alpha = translator.generator.target, options.get("keep_alpha", False)
    with open_sources([path]) as files:
        targets = plan_targets(files, out, encoding=encoding, keep_alpha=keep_alpha, **planning)
        (result,) = translate_files(translator, targets, batch_size=3, **options)
    assert not result.problem
    return result


def lost(result: FileResult) -> list[str]:
    return [note.text for note in result.notes if note.passed_over]


def save_animation(path: Path, **options: Any) -> list[np.ndarray]:
    """Save four frames; returns them as they are read again."""
    frames = [make_image(index, (24, 16)) for index in range(4)]
    settings: dict[str, Any] = {"duration": DURATIONS, "loop": 3} | options
    if path.suffix == ".webp":
        settings["lossless"] = True
    frames[0].save(path, save_all=True, append_images=frames[1:], **settings)
    return read_frames(path)


def read_frames(path: Path) -> list[np.ndarray]:
    frames = []
    with Image.open(path) as file:
        for index in range(getattr(file, "n_frames", 1)):
            file.seek(index)
            frames.append(np.asarray(file.convert("RGB")))
    return frames


def read_durations(path: Path) -> list[float]:
    durations = []
    with Image.open(path) as file:
        for index in range(getattr(file, "n_frames", 1)):
            file.seek(index)
            file.load()
            durations.append(float(file.info.get("duration", 0)))
    return durations


def save_stack(path: Path, count: int = 5, **options: Any) -> np.ndarray:
    pages = np.random.default_rng(0).integers(0, 256, (count, 12, 10), dtype=np.uint8)
    tifffile.imwrite(path, pages, photometric="minisblack", **options)
    return pages


class TestStack:
    def test_every_page_is_translated_in_its_place(self, tmp_path: Path) -> None:
        pages = save_stack(tmp_path / "a.tif")
        result = translate(open_negative(channels_A=1, channels_B=1), tmp_path / "a.tif", tmp_path / "out")
        assert np.array_equal(tifffile.imread(result.target), 255 - pages)
        assert not result.notes

    @pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint32])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_pages_of_values(self, channels: int, dtype: type, tmp_path: Path) -> None:
        """Pillow opens some of these files only."""
        shape = (4, 12, 10) if channels == 1 else (4, 12, 10, channels)
        pages = np.random.default_rng(0).uniform(0, 80, shape).astype(dtype)
        tifffile.imwrite(tmp_path / "a.tif", pages, photometric="minisblack" if channels == 1 else "rgb")
        settings = {"channels": channels, "range": (0.0, 80.0)}
        domains = {f"{name}_{domain}": value for domain in "AB" for name, value in settings.items()}
        result = translate(open_negative(**domains), tmp_path / "a.tif", tmp_path / "out")
        assert np.allclose(tifffile.imread(result.target), 80 - pages.astype(np.float32), atol=1e-4)

    def test_pages_of_different_sizes(self, tmp_path: Path) -> None:
        pages = [make_image(index, (10 + index, 8)) for index in range(4)]
        pages[0].save(tmp_path / "a.tiff", save_all=True, append_images=pages[1:])
        result = translate(open_negative(), tmp_path / "a.tiff", tmp_path / "out", resize=4)
        with tifffile.TiffFile(result.target) as file:
            assert [page.shape[:2] for page in file.pages] == [(4, round((10 + index) / 2)) for index in range(4)]
        assert result.target.name == "a.tiff"

    @pytest.mark.parametrize("form", ["png", "jpg", "npy"])
    def test_a_format_without_pages_gets_the_first_and_says_so(self, form: str, tmp_path: Path) -> None:
        save_stack(tmp_path / "a.tif")
        result = translate(open_negative(), tmp_path / "a.tif", tmp_path / "out", form=form)
        assert lost(result) == ["has several pages, of which only the first is used"]

    def test_a_damaged_page_leaves_no_partial_file(self, tmp_path: Path) -> None:
        save_stack(tmp_path / "a.tif", compression="zlib")
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            offset, length = file.pages[3].dataoffsets[0], file.pages[3].databytecounts[0]
        content = bytearray((tmp_path / "a.tif").read_bytes())
        content[offset : offset + length] = bytes(length)
        (tmp_path / "a.tif").write_bytes(content)
        with open_sources([tmp_path / "a.tif"]) as files:
            targets = plan_targets(files, tmp_path / "out")
            (result,) = translate_files(open_negative(), targets)
        assert "a.tif" in result.problem
        assert not list((tmp_path / "out").glob("*"))

    def test_progress_counts_pages(self, tmp_path: Path) -> None:
        save_stack(tmp_path / "a.tif")
        reports: list[tuple[int, int | None]] = []
        translate(
            open_negative(),
            tmp_path / "a.tif",
            tmp_path / "out",
            progress=lambda source, done, total: reports.append((done, total)),
        )
        assert reports == [(3, 5), (5, 5)]


@pytest.mark.parametrize("encoding", [PICTURE, Encoding(1), Encoding(1, "16-bit"), Encoding(3, "16-bit")], ids=str)
@pytest.mark.parametrize("kind", ["gray", "shaped", "color", "palette", "sizes"])
def test_all_pages_are_read_as_each_alone(kind: str, encoding: Encoding, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    images = [make_image(index, (20, 14 + index)) for index in range(3)]
    match kind:
        case "gray" | "shaped":
            save_stack(path, metadata=None if kind == "gray" else {})
        case "color":
            tifffile.imwrite(path, np.zeros((3, 8, 9, 3), np.uint16) + 700, photometric="rgb")
        case "palette":
            images[0].quantize(9).save(path, save_all=True, append_images=[image.quantize(9) for image in images[1:]])
        case "sizes":
            images[0].save(path, save_all=True, append_images=images[1:])
    pages = list(read_pages(path, encoding))
    assert len(pages) == count_pages(path, encoding) > 1
    for index, page in enumerate(pages):
        assert np.array_equal(page.pixels, read_decoded_image(path, encoding, page=index).pixels)


class TestAnimation:
    @pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
    def test_every_frame_is_translated_with_its_timing(self, suffix: str, tmp_path: Path) -> None:
        frames = save_animation(tmp_path / f"walk{suffix}")
        assert len(frames) == 4
        result = translate(open_negative(), tmp_path / f"walk{suffix}", tmp_path / "out")
        assert result.target.name == "walk.png"
        assert not result.notes
        translations = read_frames(result.target)
        assert all(np.array_equal(new, 255 - old) for new, old in zip(translations, frames, strict=True))
        assert read_durations(result.target) == DURATIONS
        with Image.open(result.target) as file:
            assert file.info["loop"] == 3

    def test_a_gif_without_a_loop_count_is_played_once(self, tmp_path: Path) -> None:
        save_animation(tmp_path / "walk.gif", loop=None)
        with Image.open(translate(open_negative(), tmp_path / "walk.gif", tmp_path / "out").target) as file:
            assert file.info["loop"] == 1

    def test_a_default_image_is_not_part_of_the_animation(self, tmp_path: Path) -> None:
        frames = save_animation(tmp_path / "walk.png", default_image=True, duration=DURATIONS[1:])
        result = translate(open_negative(), tmp_path / "walk.png", tmp_path / "out")
        assert all(np.array_equal(new, 255 - old) for new, old in zip(read_frames(result.target), frames, strict=True))
        with Image.open(result.target) as file:
            assert file.info["default_image"]
        assert read_durations(result.target)[1:] == DURATIONS[1:]

    @pytest.mark.parametrize(("channels", "mode"), [(1, "LA"), (3, "RGBA")])
    def test_transparent_frames_keep_their_transparency(self, channels: int, mode: str, tmp_path: Path) -> None:
        frames = [make_image(index, (24, 16)) for index in range(3)]
        mask = Image.new("L", (24, 16), 0)
        mask.paste(255, (4, 4, 20, 12))
        for frame in frames[1:]:
            frame.putalpha(mask)
        frames[0].putalpha(255)
        frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True, exact=True)
        translator = open_negative(channels_A=channels, channels_B=channels)
        result = translate(translator, tmp_path / "a.webp", tmp_path / "out", keep_alpha=True)
        with Image.open(result.target) as file:
            assert file.mode == mode
            alphas = []
            for index in range(3):
                file.seek(index)
                alphas.append(np.asarray(file.convert("RGBA"))[..., 3])
        assert [alpha.min() for alpha in alphas] == [255, 0, 0]
        assert np.array_equal(alphas[1], np.asarray(mask))

    def test_frames_are_resized(self, tmp_path: Path) -> None:
        save_animation(tmp_path / "walk.gif")
        result = translate(open_negative(), tmp_path / "walk.gif", tmp_path / "out", resize=8)
        assert [frame.shape for frame in read_frames(result.target)] == [(8, 12, 3)] * 4

    @pytest.mark.parametrize("form", ["jpg", "npy"])
    def test_a_format_without_frames_gets_the_first_and_says_so(self, form: str, tmp_path: Path) -> None:
        save_animation(tmp_path / "walk.gif")
        result = translate(open_negative(), tmp_path / "walk.gif", tmp_path / "out", form=form)
        assert lost(result) == ["has several frames, of which only the first is used"]

    def test_tiff_gets_the_frames_as_pages_and_says_so(self, tmp_path: Path) -> None:
        frames = save_animation(tmp_path / "walk.webp")
        result = translate(open_negative(), tmp_path / "walk.webp", tmp_path / "out", form="tif")
        assert np.array_equal(tifffile.imread(result.target), 255 - np.stack(frames))
        assert lost(result) == ["is an animation, whose frames became pages without durations"]

    def test_all_frames_together_are_limited(self, tmp_path: Path) -> None:
        """They are in memory together, and a small GIF file holds thousands."""
        save_animation(tmp_path / "walk.gif")
        with open_sources([tmp_path / "walk.gif"]) as files:
            targets = plan_targets(files, tmp_path / "out")
            (result,) = translate_files(open_negative(), targets, max_pixels=4 * 24 * 16 - 1)
        assert "4 frames of 24×16 pixels are more than the 1,535 allowed" in result.problem

    def test_16_bit_animations_become_pages(self, tmp_path: Path) -> None:
        frames = save_animation(tmp_path / "walk.webp")
        translator = open_negative(range_A="16-bit", range_B="16-bit")
        result = translate(translator, tmp_path / "walk.webp", tmp_path / "out", form="tif")
        assert np.array_equal(tifffile.imread(result.target), 65535 - np.stack(frames).astype(np.uint16) * 257)


@pytest.mark.parametrize("name", ["walk.gif", "stack.tif", "photo.png"])
def test_a_folder_that_cannot_be_written_ends_the_command(name: str, tmp_path: Path) -> None:
    """The next file would fail too. It is not reported as a fault of this one."""
    save_animation(tmp_path / "walk.gif")
    save_stack(tmp_path / "stack.tif")
    make_image(0).save(tmp_path / "photo.png")
    (tmp_path / "out").write_text("a file")
    with open_sources([tmp_path / name]) as files:
        targets = plan_targets(files, tmp_path / "out")
        with pytest.raises(DataError, match=r"out.*: cannot be written"):
            list(translate_files(open_negative(), targets))


class TestNames:
    def test_endings_can_be_kept(self, tmp_path: Path) -> None:
        for name in ("walk.gif", "walk.webp", "a.jpg", "a.png"):
            make_image(0).save(tmp_path / name)
        with open_sources([tmp_path]) as files:
            targets = plan_targets(files, tmp_path / "out", keep_endings=True)
        assert {target.name for target in targets.values()} == {"walk.gif.png", "walk.webp.png", "a.jpg", "a.png"}

    def test_a_format_of_two_endings_keeps_both(self, tmp_path: Path) -> None:
        for name in ("a.tif", "a.tiff", "b.jpeg"):
            make_image(0).save(tmp_path / name)
        with open_sources([tmp_path]) as files:
            assert {path.name for path in plan_targets(files, tmp_path / "out", form="tif").values()} == {
                "a.tif",
                "a.tiff",
                "b.tif",
            }
