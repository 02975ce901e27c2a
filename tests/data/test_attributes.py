"""Resolution, EXIF data, profiles and georeferences are read, and written by the formats that hold them."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tifffile
from _helpers.small import make_image
from PIL import ExifTags, Image, ImageCms

from gantoolkit.data.attributes import Attributes, read_attributes
from gantoolkit.data.encoding import PICTURE, Encoding
from gantoolkit.data.georeference import Georeference
from gantoolkit.data.writing import write_pixels

COLORS_16 = Encoding(3, "16-bit")
CAMERA, EXPOSURE, LATITUDE = "Camera 7", 0.25, (48.0, 8.0, 12.0)
PLACE = Georeference((2.0, 2.0, 0.0), (0.0, 0.0, 0.0, 5e5, 9e5, 0.0), keys=(1, 1, 0, 1, 1025, 0, 1, 1), nodata="-9999")


def make_exif(**changes: Any) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = CAMERA
    exif[ExifTags.IFD.Exif] = {
        ExifTags.Base.ExposureTime: EXPOSURE,
        ExifTags.Base.MakerNote: b"private",
        ExifTags.Base.ExifImageWidth: 40,
        ExifTags.Base.ColorSpace: 65535,
    }
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitude: LATITUDE}
    for name, value in changes.items():
        exif[ExifTags.Base[name]] = value
    return exif


def profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def parse(exif: bytes) -> Image.Exif:
    result = Image.Exif()
    result.load(exif)
    return result


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_exif_data_is_kept_without_orientation_and_private_data(suffix: str, tmp_path: Path) -> None:
    exif = make_exif(Orientation=6).tobytes()
    make_image(0).save(tmp_path / f"a{suffix}", exif=exif)
    read = parse(read_attributes(tmp_path / f"a{suffix}", PICTURE).exif)
    assert read[ExifTags.Base.Make] == CAMERA
    assert read[ExifTags.Base.Orientation] == 1
    shot = read.get_ifd(ExifTags.IFD.Exif)
    assert float(shot[ExifTags.Base.ExposureTime]) == EXPOSURE
    assert shot[ExifTags.Base.ColorSpace] == 1, "a picture is sRGB once it is read"
    assert not {ExifTags.Base.MakerNote, ExifTags.Base.ExifImageWidth} & set(shot)
    assert tuple(map(float, read.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude])) == LATITUDE


def test_thumbnails_are_dropped(tmp_path: Path) -> None:
    """They would show the image as it was."""
    plain = make_exif().tobytes()
    thumbnail = b"\xff\xd8thumbnail\xff\xd9"
    # The first directory points to a second one, which holds the thumbnail (TIFF 6.0, section 2).
    content = bytearray(plain.removeprefix(b"Exif\0\0"))
    order = "little" if content[:2] == b"II" else "big"
    first = int.from_bytes(content[4:8], order)
    count = int.from_bytes(content[first : first + 2], order)
    pointer, directory = first + 2 + 12 * count, len(content)
    content[pointer : pointer + 4] = directory.to_bytes(4, order)
    entries = ((0x0201, directory + 30), (0x0202, len(thumbnail)))
    content += len(entries).to_bytes(2, order)
    for tag, value in entries:
        content += tag.to_bytes(2, order) + (4).to_bytes(2, order) + (1).to_bytes(4, order) + value.to_bytes(4, order)
    content += bytes(4) + thumbnail
    make_image(0).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + bytes(content))
    assert thumbnail in (tmp_path / "a.jpg").read_bytes()
    write_pixels(
        np.zeros((8, 8, 3), np.uint8),
        tmp_path / "b.jpg",
        PICTURE,
        attributes=read_attributes(tmp_path / "a.jpg", PICTURE),
    )
    assert CAMERA.encode() in (tmp_path / "b.jpg").read_bytes()
    assert thumbnail not in (tmp_path / "b.jpg").read_bytes()


@pytest.mark.parametrize(
    ("encoding", "suffix"),
    [(PICTURE, ".jpg"), (PICTURE, ".png"), (PICTURE, ".tif"), (COLORS_16, ".png"), (COLORS_16, ".tif")],
    ids=str,
)
def test_what_a_format_holds_is_written_and_read_again(encoding: Encoding, suffix: str, tmp_path: Path) -> None:
    attributes = Attributes((300.0, 150.0), make_exif(Copyright="© Ada".encode("latin-1")).tobytes(), profile(), PLACE)
    path = tmp_path / f"a{suffix}"
    write_pixels(np.zeros((6, 9, 3), encoding.dtype), path, encoding, attributes=attributes)
    read = read_attributes(path, encoding)
    assert read.dpi == pytest.approx((300, 150), abs=0.02), "PNG stores pixels per meter"
    exif = parse(read.exif)
    assert exif[ExifTags.Base.Make] == CAMERA
    assert exif[ExifTags.Base.Copyright] == "© Ada"
    assert bool(exif.get_ifd(ExifTags.IFD.GPSInfo)) == (suffix != ".tif"), "a TIFF file gets the text only"
    assert read.profile == (b"" if encoding.is_picture else profile())
    assert read.georeference == (PLACE if suffix == ".tif" else Georeference())


def test_a_profile_for_other_channels_is_not_written(tmp_path: Path) -> None:
    gray = Encoding(1, "16-bit")
    write_pixels(np.zeros((6, 9, 1), np.uint16), tmp_path / "a.tif", gray, attributes=Attributes(profile=profile()))
    assert read_attributes(tmp_path / "a.tif", gray).profile == b""


def test_resolution_of_a_turned_image_is_turned(tmp_path: Path) -> None:
    make_image(0).save(tmp_path / "a.jpg", dpi=(300, 150), exif=make_exif(Orientation=6))
    assert read_attributes(tmp_path / "a.jpg", PICTURE).dpi == (150, 300)


def test_a_resized_image_covers_the_same_area() -> None:
    attributes = Attributes(dpi=(300.0, 300.0), georeference=PLACE).resized((100, 80), (50, 20))
    assert attributes.dpi == (150, 75)
    assert attributes.georeference.scale[:2] == (4, 8)
    assert Attributes(dpi=(40_000.0, 300.0)).resized((10, 10), (20, 20)).dpi is None, "no format holds it"


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_tags_of_files_that_pillow_cannot_open(bigtiff: bool, byteorder: Literal["<", ">"], tmp_path: Path) -> None:
    values = np.zeros((6, 9, 7), np.float32)
    tifffile.imwrite(
        tmp_path / "a.tif",
        values,
        bigtiff=bigtiff,
        byteorder=byteorder,
        planarconfig="contig",
        extratags=PLACE.tags(),
        resolution=(100, 50),
        resolutionunit="CENTIMETER",
        metadata=None,
    )
    read = read_attributes(tmp_path / "a.tif", Encoding(7, (0.0, 1.0)))
    assert read.georeference == PLACE
    assert read.dpi == pytest.approx((254, 127))


def test_descriptions_of_an_arrangement_are_dropped(tmp_path: Path) -> None:
    """They describe the pages and channels of the old file, which another program would believe."""
    for name, text in (("a", "ImageJ=1.54f\nimages=9"), ("b", "<?xml version='1.0'?><OME/>"), ("c", '{"shape": [9]}')):
        make_image(0).save(tmp_path / f"{name}.tif", description=text)
        assert b"ImageJ" not in read_attributes(tmp_path / f"{name}.tif", PICTURE).exif
        assert read_attributes(tmp_path / f"{name}.tif", PICTURE).exif == b""
    make_image(0).save(tmp_path / "d.tif", description="A harbor at dawn")
    assert b"harbor" in read_attributes(tmp_path / "d.tif", PICTURE).exif


def test_files_without_attributes_or_with_invalid_ones(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 4), np.uint8))
    make_image(0).save(tmp_path / "b.png")
    make_image(0).save(tmp_path / "c.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    (tmp_path / "d.tif").write_bytes(b"II*\0\xff\xff\xff\x7f")
    for name in ("a.npy", "b.png", "d.tif"):
        assert read_attributes(tmp_path / name, PICTURE) == Attributes()
    assert read_attributes(tmp_path / "c.jpg", PICTURE).exif == b""


def test_too_much_exif_data_for_jpeg_is_not_written(tmp_path: Path) -> None:
    exif = make_exif(ImageDescription="x" * 70_000).tobytes()
    write_pixels(np.zeros((6, 9, 3), np.uint8), tmp_path / "a.jpg", PICTURE, attributes=Attributes(exif=exif))
    with Image.open(tmp_path / "a.jpg") as image:
        assert not image.getexif()
