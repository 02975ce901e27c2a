"""Files with several images: pages along C are channels, other pages and frames are images of their own."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from _helpers.small import make_image
from PIL import Image

from gantoolkit.data.encoding import PICTURE, Encoding
from gantoolkit.data.images import ImageContent, ImageFile
from gantoolkit.data.notes import SEVERAL_FRAMES, SEVERAL_PAGES
from gantoolkit.data.pixels import count_pages, read_decoded_image, read_image, read_pages, read_pixel_size, read_pixels
from gantoolkit.errors import DataError

DEEP = Encoding(1, "16-bit")


def levels(shape: tuple[int, ...], dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def write_tiff(path: Path, values: np.ndarray, axes: str, form: str) -> None:
    """Write an array as OME-TIFF, as a hyperstack of ImageJ, or as tifffile describes arrays."""
    options = {"ome": {"ome": True}, "imagej": {"imagej": True}, "shaped": {}}[form]
    photometric = "rgb" if axes.endswith("S") else "minisblack"
    tifffile.imwrite(path, values, photometric=photometric, metadata={"axes": axes}, **options)


class TestChannels:
    @pytest.mark.parametrize("form", ["ome", "imagej", "shaped"])
    def test_pages_along_C_are_channels(self, form: str, tmp_path: Path) -> None:
        color = levels((3, 9, 7))
        write_tiff(tmp_path / "x.ome.tif", color, "CYX", form)
        assert np.array_equal(read_pixels(tmp_path / "x.ome.tif", PICTURE), np.moveaxis(color, 0, 2))
        assert np.array_equal(np.asarray(read_image(tmp_path / "x.ome.tif")), np.moveaxis(color, 0, 2))
        assert count_pages(tmp_path / "x.ome.tif", PICTURE) == 1
        assert read_decoded_image(tmp_path / "x.ome.tif", PICTURE).notes == ()

    @pytest.mark.parametrize("form", ["ome", "imagej", "shaped"])
    def test_two_channels_of_16_bits(self, form: str, tmp_path: Path) -> None:
        values = levels((2, 9, 7), np.uint16)
        write_tiff(tmp_path / "x.tif", values, "CYX", form)
        assert np.array_equal(read_pixels(tmp_path / "x.tif", Encoding(2, "16-bit")), np.moveaxis(values, 0, 2))
        with pytest.raises(
            DataError, match=r"x\.tif: holds 2 bands of uint16; images of its domain are RGB, 8-bit; a recipe"
        ):
            read_pixels(tmp_path / "x.tif", PICTURE)

    @pytest.mark.parametrize(
        ("form", "axes"), [("ome", "TCYX"), ("ome", "CZYX"), ("imagej", "ZCYX"), ("shaped", "CTYX")]
    )
    def test_hyperstack_has_a_page_for_each_time_or_depth(self, form: str, axes: str, tmp_path: Path) -> None:
        values = levels(tuple({"T": 4, "Z": 4, "C": 3, "Y": 9, "X": 7}[axis] for axis in axes))
        write_tiff(tmp_path / "x.tif", values, axes, form)
        ordered = np.moveaxis(values, axes.index("C"), -1)
        assert count_pages(tmp_path / "x.tif", PICTURE) == 4
        for page in range(4):
            decoded = read_decoded_image(tmp_path / "x.tif", PICTURE, page=page)
            assert np.array_equal(decoded.pixels, ordered[page])
            assert decoded.notes == ((SEVERAL_PAGES,) if page == 0 else ())

    def test_stack_that_ImageJ_writes_without_directories(self, tmp_path: Path) -> None:
        values = levels((5, 2, 9, 7), np.uint16)
        tifffile.imwrite(tmp_path / "x.tif", values, imagej=True, metadata={"axes": "ZCYX"}, truncate=True)
        with tifffile.TiffFile(tmp_path / "x.tif") as file:
            assert len(file.pages) == 1
        encoding = Encoding(2, "16-bit")
        assert count_pages(tmp_path / "x.tif", encoding) == 5
        assert np.array_equal(read_pixels(tmp_path / "x.tif", encoding, page=3), np.moveaxis(values[3], 0, 2))
        content = ImageContent((tmp_path / "x.tif").read_bytes())
        assert np.array_equal(read_pixels(content, encoding, page=4), np.moveaxis(values[4], 0, 2))

    def test_other_files_that_a_description_names_are_not_opened(self, tmp_path: Path) -> None:
        values = levels((2, 9, 7))
        xml = (
            '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">'
            '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="7" SizeY="9" SizeC="2" '
            'SizeZ="1" SizeT="1"><Channel ID="Channel:0:0"/><Channel ID="Channel:0:1"/>'
            '<TiffData IFD="0" FirstC="0" PlaneCount="1"><UUID FileName="other.tif">urn:uuid:2</UUID></TiffData>'
            "</Pixels></Image></OME>"
        )
        tifffile.imwrite(tmp_path / "other.tif", values[0] * 0 + 5, metadata=None)
        with tifffile.TiffWriter(tmp_path / "x.ome.tif") as writer:
            writer.write(values[0], description=xml, metadata=None)
            writer.write(values[1], metadata=None)
        assert np.array_equal(read_pixels(tmp_path / "x.ome.tif", Encoding(1))[..., 0], values[0])
        assert count_pages(tmp_path / "x.ome.tif", PICTURE) == 2


class TestPages:
    def test_ten_slices_are_ten_pages(self, tmp_path: Path) -> None:
        values = levels((10, 9, 7), np.uint16)
        tifffile.imwrite(tmp_path / "x.tif", values, metadata=None, photometric="minisblack")
        for encoding in (DEEP, Encoding(1), Encoding(1, (0.0, 65535.0))):
            assert count_pages(tmp_path / "x.tif", encoding) == 10
            assert read_decoded_image(tmp_path / "x.tif", encoding).notes == (SEVERAL_PAGES,)
        assert SEVERAL_PAGES.passed_over
        for page in (0, 3, 9):
            assert np.array_equal(read_pixels(tmp_path / "x.tif", DEEP, page=page)[..., 0], values[page])
        for page in (10, -1):
            with pytest.raises(DataError, match=r"x\.tif: has 10 pages; there is no page"):
                read_pixels(tmp_path / "x.tif", DEEP, page=page)

    def test_pages_are_RGB(self, tmp_path: Path) -> None:
        values = levels((3, 9, 7, 3))
        write_tiff(tmp_path / "x.tif", values, "ZYXS", "ome")
        assert count_pages(tmp_path / "x.tif", PICTURE) == 3
        assert np.array_equal(read_pixels(tmp_path / "x.tif", PICTURE, page=2), values[2])

    def test_pages_of_different_sizes_and_modes(self, tmp_path: Path) -> None:
        pages = [make_image(0, (20, 12)), make_image(1, (8, 30)).convert("P"), make_image(2, (9, 9)).convert("1")]
        pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
        for page, image in enumerate(pages):
            pixels = read_pixels(tmp_path / "x.tif", PICTURE, page=page)
            assert np.array_equal(pixels, np.asarray(image.convert("RGB")))

    def test_thumbnails_masks_and_pyramids_are_no_pages(self, tmp_path: Path) -> None:
        values = levels((64, 48))
        with tifffile.TiffWriter(tmp_path / "x.tif") as writer:
            writer.write(values, metadata=None)
            for step in (2, 4):
                writer.write(values[::step, ::step], subfiletype=1, metadata=None)
            writer.write(values > 9, subfiletype=4, metadata=None)
        for encoding in (PICTURE, DEEP):
            assert count_pages(tmp_path / "x.tif", encoding) == 1
            assert read_decoded_image(tmp_path / "x.tif", encoding).notes == ()

    @pytest.mark.parametrize("suffix", ["tif", "png"])
    def test_pages_of_one_half(self, suffix: str, tmp_path: Path) -> None:
        pages = [make_image(seed, (20, 12)) for seed in range(2)]
        pages[0].save(tmp_path / f"x.{suffix}", save_all=True, append_images=pages[1:])
        halves = list(read_pages(ImageFile(tmp_path / f"x.{suffix}", "right"), PICTURE))
        for half, page in zip(halves, pages, strict=True):
            assert np.array_equal(half.pixels, np.asarray(page)[:, 10:])

    def test_a_thumbnail_may_come_first(self, tmp_path: Path) -> None:
        """The size in the header is that of the image, so that there is room for it in a cache."""
        values = levels((64, 48))
        with tifffile.TiffWriter(tmp_path / "x.tif") as writer:
            writer.write(values[::4, ::4], subfiletype=1, metadata=None)
            writer.write(values, metadata=None)
        for encoding in (Encoding(1), DEEP):
            assert read_pixels(tmp_path / "x.tif", encoding).shape == (64, 48, 1)
            assert read_pixel_size(tmp_path / "x.tif", encoding) == (48, 64)

    def test_damaged_later_page_does_not_affect_the_first(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "x.tif", levels((3, 9, 7)), metadata=None, photometric="minisblack")
        with tifffile.TiffFile(tmp_path / "x.tif") as file:
            offset = file.pages[1].offset
        content = bytearray((tmp_path / "x.tif").read_bytes())
        content[offset + 2 : offset + 60] = b"\xff" * 58
        (tmp_path / "x.tif").write_bytes(content)
        assert np.array_equal(read_pixels(tmp_path / "x.tif", Encoding(1))[..., 0], levels((3, 9, 7))[0])

    def test_without_tifffile(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "plain.tif", levels((3, 9, 7)), metadata=None, photometric="minisblack")
        write_tiff(tmp_path / "color.ome.tif", levels((3, 9, 7)), "CYX", "ome")
        write_tiff(tmp_path / "one.tif", levels((9, 7)), "YX", "imagej")
        program = (
            "import sys; sys.modules['tifffile'] = None\n"
            "from pathlib import Path\n"
            "from gantoolkit.data.encoding import Encoding\n"
            "from gantoolkit.data.pixels import count_pages, read_decoded_image\n"
            "for name in ('plain', 'one', 'color.ome'):\n"
            f"    path = Path({str(tmp_path)!r}, name + '.tif')\n"
            "    print(name, count_pages(path, Encoding(1)), len(read_decoded_image(path, Encoding(1)).notes))\n"
        )
        result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert result.stdout.splitlines() == ["plain 3 1", "one 1 0"]
        assert "this TIFF file needs the extra `depth`" in result.stderr


class TestFrames:
    @pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
    def test_animation_has_several_frames(self, form: str, tmp_path: Path) -> None:
        colors = [(255, 0, 0), (0, 0, 255), (0, 255, 0)]
        frames = [Image.new("RGB", (16, 12), color) for color in colors]
        options = {"lossless": True} if form == "WEBP" else {}
        frames[0].save(tmp_path / "walk", form, save_all=True, append_images=frames[1:], **options)
        assert count_pages(tmp_path / "walk", PICTURE) == 3
        for page, color in enumerate(colors):
            decoded = read_decoded_image(tmp_path / "walk", PICTURE, page=page)
            assert decoded.pixels[0, 0].tolist() == list(color)
            assert decoded.notes == ((SEVERAL_FRAMES,) if page == 0 else ())
        assert SEVERAL_FRAMES.passed_over

    @pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "JPEG", "TIFF", "BMP", "PPM"])
    def test_ordinary_picture_has_one(self, form: str, tmp_path: Path) -> None:
        make_image(0, (16, 12)).save(tmp_path / "x", form)
        assert count_pages(tmp_path / "x", PICTURE) == 1
        assert read_decoded_image(tmp_path / "x", PICTURE).notes == ()

    def test_previews_in_photographs_are_no_frames(self, tmp_path: Path) -> None:
        picture = make_image(0, (64, 48))
        picture.save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=[picture.resize((16, 12))])
        with Image.open(tmp_path / "x.jpg") as file:
            assert file.n_frames == 2
        assert count_pages(tmp_path / "x.jpg", PICTURE) == 1
        assert read_decoded_image(tmp_path / "x.jpg", PICTURE).notes == ()


def test_ordinary_files_do_not_import_tifffile(tmp_path: Path) -> None:
    make_image(0, (16, 12)).save(tmp_path / "x.png")
    make_image(0, (16, 12)).save(tmp_path / "x.jpg")
    make_image(0, (16, 12)).save(tmp_path / "x.tif")
    program = (
        "import sys\n"
        "from gantoolkit.data import read_image\n"
        f"[read_image({str(tmp_path)!r} + '/x.' + suffix) for suffix in ('png', 'jpg', 'tif')]\n"
        "print('tifffile' in sys.modules)\n"
    )
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"
    )


def test_page_of_an_array_file(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, levels((9, 7)))
    content = ImageContent(stream.getvalue(), "x.npy")
    assert count_pages(content, Encoding(1)) == 1
    with pytest.raises(DataError, match=r"x\.npy: has 1 page; there is no page 2"):
        read_pixels(content, Encoding(1), page=1)
