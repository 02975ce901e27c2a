"""`gantoolkit translate`: what is passed over is named once for each kind, and the exit code says so."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from _helpers.small import make_dataset, make_image, make_tiny
from PIL import Image

import gantoolkit


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    gantoolkit.train(make_tiny(), make_dataset(folder / "data"), folder / "run", device="cpu", stop_at=1)
    return folder / "run" / "generators" / "A2B.safetensors"


@pytest.fixture
def translate(command: Callable, generator: Path, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """Translate the folder `photos`."""
    (tmp_path / "photos").mkdir()
    return lambda *options: command("translate", generator, tmp_path / "photos", "--out", tmp_path / "out", *options)


def save_animation(path: Path) -> None:
    frames = [make_image(index, (16, 12)) for index in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=80)


def save_transparent(path: Path) -> None:
    image = make_image(0, (16, 12))
    image.putalpha(128)
    image.save(path)


def test_notes_are_counted_by_kind(translate: Callable, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for name in ("a", "b", "c"):
        save_transparent(photos / f"{name}.png")
    save_animation(photos / "walk.gif")
    make_image(0, (16, 12)).save(photos / "plain.png")
    code, output, errors = translate()
    assert code == 0, "transparency is blended, as in training; nothing is passed over"
    assert "5 files translated" in output
    assert errors == (
        f"note: {photos / 'a.png'} has transparent pixels, which are opaque in its translation; "
        "--keep-alpha keeps them (and 2 more)\n"
    )
    with Image.open(tmp_path / "out" / "walk.png") as image:
        assert image.n_frames == 3  # type: ignore[attr-defined]
    code, _, errors = translate("--keep-alpha")
    assert (code, errors) == (0, "")
    with Image.open(tmp_path / "out" / "a.png") as image:
        assert image.mode == "RGBA"


def test_what_is_passed_over_has_an_exit_code_also_when_it_is_up_to_date(translate: Callable, tmp_path: Path) -> None:
    save_animation(tmp_path / "photos" / "walk.gif")
    for part in ("1 file translated", "1 there already"):
        code, output, errors = translate("--form", "jpg")
        assert code == 3
        assert part in output
        assert errors == (
            f"note: {tmp_path / 'photos' / 'walk.gif'} has several frames, of which only the first is used\n"
        )
    (line,) = map(json.loads, (tmp_path / "out" / "manifest.jsonl").read_text().splitlines())
    assert line["notes"] == [{"text": "has several frames, of which only the first is used", "passed_over": True}]


def test_a_translation_with_transparency_is_made_again_without_it(translate: Callable, tmp_path: Path) -> None:
    save_transparent(tmp_path / "photos" / "a.png")
    for options, mode in (([], "RGB"), (["--keep-alpha"], "RGBA"), ([], "RGB")):
        _, output, _ = translate(*options)
        assert "1 file translated" in output
        with Image.open(tmp_path / "out" / "a.png") as image:
            assert image.mode == mode


def test_a_collision_of_names_offers_to_keep_the_endings(translate: Callable, tmp_path: Path) -> None:
    for name in ("walk.gif", "walk.webp"):
        save_animation(tmp_path / "photos" / name)
    code, _, errors = translate()
    assert code == 2
    assert "--keep-endings names them walk.gif.png and walk.webp.png" in errors
    code, _, _ = translate("--keep-endings")
    assert code == 0
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {"walk.gif.png", "walk.webp.png"}


def test_transparency_and_a_format_without_it_are_a_contradiction(translate: Callable, tmp_path: Path) -> None:
    make_image(0).save(tmp_path / "photos" / "a.png")
    code, _, errors = translate("--keep-alpha", "--form", "jpg")
    assert code == 2
    assert "--form jpg: cannot store the transparency of images of RGB, 8-bit; .png and .tif can" in errors


def test_the_limit_of_pixels_can_be_changed(
    translate: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_image(0, (40, 36)).save(tmp_path / "photos" / "a.png")
    monkeypatch.setattr("gantoolkit.data.images.MAX_PIXELS", 1000)
    code, _, errors = translate()
    assert code == 3
    assert "a.png: 40×36 pixels are more than the 1,000 allowed; --max-pixels allows more" in errors
    code, output, _ = translate("--max-pixels", "1440")
    assert code == 0
    assert "1 file translated" in output


def test_large_images_need_memory(translate: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_image(0, (40, 36)).save(tmp_path / "photos" / "a.png")
    monkeypatch.setattr("gantoolkit.inference.memory.MAX_PIXELS", 1000)
    monkeypatch.setattr("gantoolkit.inference.memory.available_memory", lambda device: 1000)
    code, _, errors = translate()
    assert code == 3
    assert "a.png: an image of 40×36 pixels takes " in errors
    assert "of memory to translate without tiles, and 1 kB are free" in errors
