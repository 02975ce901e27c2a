"""What an image holds besides its colors is in its translation too, or is named."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from _helpers.small import make_image
from _helpers.translators import open_negative
from PIL import ExifTags, Image, ImageCms

from gantoolkit.data.georeference import Georeference, read_georeference
from gantoolkit.inference import FileResult, Translator, translate_files
from gantoolkit.inference.manifest import Manifest
from gantoolkit.inference.sources import open_sources
from gantoolkit.inference.targets import plan_targets

PLACE = Georeference(
    (2.0, 3.0, 0.0),
    (0.0, 0.0, 0.0, 500.0, 900.0, 0.0),
    keys=(1, 1, 0, 1, 1025, 0, 1, 1),
    text="WGS 84|",
    metadata='<GDALMetadata><Item name="AREA">forest</Item></GDALMetadata>',
)


def translate(translator: Translator, path: Path, **options: Any) -> FileResult:
    """Translate one file into the folder `out` beside it."""
    planning = {name: options.pop(name) for name in ("form",) if name in options}
    encoding, keep_alpha = translator.generator.target, options.get("keep_alpha", False)
    with open_sources([path]) as files:
        targets = plan_targets(files, path.parent / "out", encoding=encoding, keep_alpha=keep_alpha, **planning)
        (result,) = translate_files(translator, targets, **options)
    assert not result.problem
    return result


def lost(result: FileResult) -> list[str]:
    return [note.text for note in result.notes if note.passed_over]


def elevation(**changes: Any) -> Translator:
    """A translator of one channel of values from 0 to 80, of which -9999 means no data."""
    values = {"channels": 1, "range": (0.0, 80.0)}
    both = {f"{name}_{domain}": value for domain in "AB" for name, value in values.items()}
    return open_negative(**({**both, "nodata_A": -9999.0} | changes))


def save_elevation(path: Path, *, nodata: float = -9999.0, place: Georeference | None = None) -> np.ndarray:
    """Save values with a corner without data; returns where it is."""
    values = np.random.default_rng(0).uniform(1, 79, (20, 30)).astype(np.float32)
    mask = np.zeros((20, 30), bool)
    mask[:5, :8] = True
    values[mask] = nodata
    tifffile.imwrite(path, values, extratags=place.tags() if place else [], metadata=None)
    return mask


class TestPhotographs:
    def test_resolution_and_exif_data_are_kept_and_the_picture_is_upright(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[ExifTags.Base.Make], exif[ExifTags.Base.Orientation] = "Camera 7", 6
        make_image(0, (40, 30)).save(tmp_path / "a.jpg", exif=exif, dpi=(300, 150))
        for form in ("jpg", "png"):
            with Image.open(translate(open_negative(), tmp_path / "a.jpg", form=form, resize=15).target) as image:
                assert image.size == (15, 20)
                assert image.info["dpi"] == pytest.approx((75, 150), abs=0.02), "the size on paper stays"
                assert image.getexif()[ExifTags.Base.Make] == "Camera 7"
                assert image.getexif()[ExifTags.Base.Orientation] == 1

    def test_a_profile_is_kept_for_values_that_are_not_converted(self, tmp_path: Path) -> None:
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        values = np.zeros((6, 9, 3), np.uint16)
        tifffile.imwrite(tmp_path / "a.tif", values, iccprofile=profile, photometric="rgb", metadata=None)
        deep = {"range_A": "16-bit"}
        for changes, expects_profile in (
            ({"range_B": "16-bit"}, True),
            ({"range_B": "16-bit", "channels_B": 1}, False),
            ({}, False),
        ):
            target = translate(open_negative(**deep, **changes), tmp_path / "a.tif", form="tif").target
            with tifffile.TiffFile(target) as file:
                assert (34675 in file.pages.first.tags) == expects_profile, changes


class TestTransparency:
    def save(self, path: Path, mode: str = "RGBA") -> np.ndarray:
        image = make_image(0, (30, 20)).convert(mode)
        alpha = np.tile(np.linspace(0, 255, 30).astype(np.uint8), (20, 1))
        image.putalpha(Image.fromarray(alpha))
        image.save(path)
        return alpha

    def test_without_the_option_it_is_named(self, tmp_path: Path) -> None:
        self.save(tmp_path / "a.png")
        result = translate(open_negative(), tmp_path / "a.png")
        assert [note.text for note in result.notes] == [
            "has transparent pixels, which are opaque in its translation; --keep-alpha keeps them"
        ]
        with Image.open(result.target) as image:
            assert image.mode == "RGB"

    @pytest.mark.parametrize(
        ("form", "target", "remedy"),
        [
            ("jpg", {}, "; --keep-alpha with --form png keeps them"),
            ("npy", {"range_B": "16-bit"}, "; --keep-alpha with --form png keeps them"),
            ("tif", {"range_B": (0.0, 80.0)}, ""),
        ],
    )
    def test_remedy_is_one_that_the_format_allows(self, form: str, target: dict, remedy: str, tmp_path: Path) -> None:
        self.save(tmp_path / "a.png")
        result = translate(open_negative(**target), tmp_path / "a.png", form=form)
        assert [note.text for note in result.notes] == [
            f"has transparent pixels, which are opaque in its translation{remedy}"
        ]

    @pytest.mark.parametrize("form", ["png", "tif"])
    @pytest.mark.parametrize(("channels", "mode"), [(1, "LA"), (3, "RGBA")])
    @pytest.mark.parametrize("depth", ["8-bit", "16-bit"])
    def test_it_is_put_back(self, depth: str, channels: int, mode: str, form: str, tmp_path: Path) -> None:
        alpha = self.save(tmp_path / "a.png", mode="L" if channels == 1 else "RGB")
        translator = open_negative(channels_A=channels, channels_B=channels, range_A=depth, range_B=depth)
        result = translate(translator, tmp_path / "a.png", keep_alpha=True, form=form)
        assert not result.notes
        if form == "tif":
            values = tifffile.imread(result.target)
            with tifffile.TiffFile(result.target) as file:
                assert file.pages.first.extrasamples == (2,), "unassociated alpha"
        else:
            values = imagecodecs.png_decode(result.target.read_bytes())
        assert values.shape == (20, 30, channels + 1)
        assert np.array_equal(values[..., -1], alpha.astype(values.dtype) * (257 if depth == "16-bit" else 1))

    def test_it_is_resized_with_the_image(self, tmp_path: Path) -> None:
        alpha = self.save(tmp_path / "a.png")
        result = translate(open_negative(), tmp_path / "a.png", keep_alpha=True, resize=10)
        with Image.open(result.target) as image:
            small = np.asarray(image)[..., 3].astype(int)
        assert small.shape == (10, 15)
        assert np.abs(small - alpha.reshape(10, 2, 15, 2).mean((1, 3))).max() < 6

    def test_nothing_is_mixed_if_the_domain_mixes_nothing(self, tmp_path: Path) -> None:
        image = make_image(0, (30, 20))
        image.putalpha(Image.fromarray(np.random.default_rng(0).choice([0, 255], (20, 30)).astype(np.uint8)))
        image.save(tmp_path / "a.png")
        translator = open_negative(resample_A="nearest")
        result = translate(translator, tmp_path / "a.png", keep_alpha=True, resize=7)
        with Image.open(result.target) as translation:
            assert set(np.unique(np.asarray(translation)[..., 3])) == {0, 255}

    def test_a_format_that_does_not_hold_it_is_named(self, tmp_path: Path) -> None:
        self.save(tmp_path / "a.png")
        (tmp_path / "a.png").rename(tmp_path / "a.jpg")  # names may be wrong
        result = translate(open_negative(), tmp_path / "a.jpg", keep_alpha=True)
        assert lost(result) == ["has transparent pixels, which the format of its translation does not hold"]

    def test_an_opaque_image_stays_opaque(self, tmp_path: Path) -> None:
        make_image(0).save(tmp_path / "a.png")
        with Image.open(translate(open_negative(), tmp_path / "a.png", keep_alpha=True).target) as image:
            assert image.mode == "RGB"


class TestGeoreference:
    def test_it_is_kept(self, tmp_path: Path) -> None:
        save_elevation(tmp_path / "a.tif", place=PLACE)
        result = translate(elevation(), tmp_path / "a.tif")
        assert self.read(result.target) == replace(PLACE, nodata="-9999")
        assert not result.notes

    def test_a_picture_with_a_georeference_stays_tiff(self, tmp_path: Path) -> None:
        tifffile.imwrite(
            tmp_path / "a.tif", np.asarray(make_image(0)), extratags=PLACE.tags(), photometric="rgb", metadata=None
        )
        make_image(0).save(tmp_path / "b.tif")
        result = translate(open_negative(), tmp_path / "a.tif")
        assert self.read(result.target) == PLACE
        assert translate(open_negative(), tmp_path / "b.tif").target.suffix == ".png"

    def test_a_resized_translation_covers_the_same_area(self, tmp_path: Path) -> None:
        save_elevation(tmp_path / "a.tif", place=PLACE)
        result = translate(elevation(), tmp_path / "a.tif", resize=10)
        assert tifffile.imread(result.target).shape == (10, 15)
        assert self.read(result.target).scale == (4.0, 6.0, 0.0)

    def test_an_orientation_that_turns_the_image_is_named(self, tmp_path: Path) -> None:
        tags = [*PLACE.tags(), (274, "H", 1, 6, False)]
        tifffile.imwrite(tmp_path / "a.tif", np.ones((20, 30), np.float32), extratags=tags, metadata=None)
        result = translate(elevation(), tmp_path / "a.tif")
        assert lost(result) == ["has a georeference, which does not fit once its orientation is applied"]
        assert tifffile.imread(result.target).shape == (30, 20)
        assert not self.read(result.target).locates

    @pytest.mark.parametrize("form", ["npy", "png"])
    def test_a_format_that_does_not_hold_it_is_named(self, form: str, tmp_path: Path) -> None:
        save_elevation(tmp_path / "a.tif", place=PLACE)
        result = translate(elevation(nodata_B=0.0), tmp_path / "a.tif", form=form)
        assert lost(result) == ["has a georeference, which only a TIFF file holds; --form tif keeps it"]

    @pytest.mark.parametrize(
        ("stated", "corner", "is_named"),
        [
            ("0", 0.0, True),
            ("0", -9999.0, False),
            ("nan", -9999.0, False),
            ("-9999.0", -9999.0, False),
            ("none", -9999.0, False),
        ],
    )
    def test_a_value_without_data_that_the_recipe_does_not_know_is_named(
        self, stated: str, corner: float, is_named: bool, tmp_path: Path
    ) -> None:
        """The pixels that have it were translated like any other."""
        save_elevation(tmp_path / "a.tif", nodata=corner, place=replace(PLACE, nodata=stated))
        result = translate(elevation(), tmp_path / "a.tif")
        text = "states a value of pixels without data, which data.nodata_A does not name"
        assert lost(result) == ([text] if is_named else [])
        assert self.read(result.target).nodata == "-9999"

    def test_a_picture_names_every_value_without_data(self, tmp_path: Path) -> None:
        tags, picture = replace(PLACE, nodata="0").tags(), np.asarray(make_image(0))
        tifffile.imwrite(tmp_path / "a.tif", picture, extratags=tags, photometric="rgb", metadata=None)
        result = translate(open_negative(), tmp_path / "a.tif")
        assert lost(result) == ["states a value of pixels without data, which data.nodata_A does not name"]
        assert self.read(result.target).nodata == ""

    def read(self, path: Path) -> Georeference:
        with tifffile.TiffFile(path) as file:
            return read_georeference({tag.code: tag.value for tag in file.pages.first.tags})


class TestPixelsWithoutData:
    @pytest.mark.parametrize(
        ("changes", "stored", "expected"),
        [
            ({}, -9999.0, -9999.0),
            ({"nodata_B": -1.0}, -9999.0, -1.0),
            ({"nodata_B": "nan"}, -9999.0, math.nan),
            ({"nodata_A": "nan"}, math.nan, math.nan),
        ],
        ids=str,
    )
    def test_they_have_none_in_the_translation(
        self, changes: dict[str, Any], stored: float, expected: float, tmp_path: Path
    ) -> None:
        mask = save_elevation(tmp_path / "a.tif", nodata=stored)
        result = translate(elevation(**changes), tmp_path / "a.tif")
        values = tifffile.imread(result.target)
        assert np.array_equal(values[mask], np.full(mask.sum(), expected, np.float32), equal_nan=True)
        assert (values[~mask] >= 0).all()
        with tifffile.TiffFile(result.target) as file:
            assert float(file.pages.first.tags[42113].value) == pytest.approx(expected, nan_ok=True)

    def test_pixels_with_data_do_not_get_the_value(self, tmp_path: Path) -> None:
        """0 is the low end of the range, which a network often produces."""
        mask = np.zeros((20, 30), bool)
        mask[:5] = True
        np.save(tmp_path / "a.npy", np.where(mask, -9999, 80).astype(np.float32))
        values = np.load(translate(elevation(nodata_B=0.0), tmp_path / "a.npy").target)
        assert (values[mask] == 0).all()
        assert ((values[~mask] > 0) & (values[~mask] < 1e-6)).all()
        with Image.open(translate(elevation(nodata_B=0.0), tmp_path / "a.npy", form="png").target) as image:
            assert (np.asarray(image)[~mask] == 1).all(), "PNG stores integers"

    def test_the_edge_is_not_mixed_when_the_image_is_resized(self, tmp_path: Path) -> None:
        mask = save_elevation(tmp_path / "a.tif")
        values = tifffile.imread(translate(elevation(), tmp_path / "a.tif", resize=10).target)
        assert set(np.unique(values[values < 0])) == {-9999.0}
        assert (values == -9999).sum() == pytest.approx(mask.sum() / 4, abs=6)

    def test_a_translation_without_such_a_value_is_named(self, tmp_path: Path) -> None:
        save_elevation(tmp_path / "a.tif")
        pictures = elevation(channels_B=3, range_B="8-bit")
        assert lost(translate(pictures, tmp_path / "a.tif")) == [
            "has pixels without data, for which its translation has no value"
        ]


class TestNotes:
    def test_the_manifest_records_them_and_names_them_again(self, tmp_path: Path) -> None:
        image = make_image(0)
        image.putalpha(100)
        image.save(tmp_path / "a.png")
        out = tmp_path / "out"
        first = translate(open_negative(), tmp_path / "a.png", manifest=Manifest(out, {}))
        (line,) = (json.loads(text) for text in (out / "manifest.jsonl").read_text().splitlines())
        assert line["notes"] == [{"text": note.text, "passed_over": False} for note in first.notes]
        second = translate(open_negative(), tmp_path / "a.png", manifest=Manifest(out, {}))
        assert second.up_to_date
        assert second.notes == first.notes

    def test_labels_are_resized_as_their_domain_says(self, tmp_path: Path) -> None:
        labels = np.random.default_rng(0).choice([10, 200], (40, 40)).astype(np.uint8)
        Image.fromarray(labels).save(tmp_path / "a.png")
        translator = open_negative(channels_A=1, channels_B=1, resample_A="nearest")
        with Image.open(translate(translator, tmp_path / "a.png", resize=13).target) as image:
            assert set(np.unique(np.asarray(image))) == {245, 55}
