"""The page of `gantoolkit serve` in a real browser."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _helpers.patience import PATIENCE
from _helpers.serving import ModelServer
from _helpers.small import make_dataset, make_image, make_tiny
from PIL import Image

import gantoolkit
from gantoolkit import load

pytestmark = pytest.mark.slow(reason="runs a browser")

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
TIMEOUT = 1000 * PATIENCE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve")
    data = make_dataset(folder / "data")
    for seed, name in enumerate(("one", "two")):
        gantoolkit.train(make_tiny().swap({"training.seed": seed}), data, folder / name, device="cpu", stop_at=2)
    make_image(7, (61, 47)).save(folder / "horse.png")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ModelServer]:
    alone = folder / "one" / "generators" / "B2A.safetensors"
    arguments = [str(folder / "one"), str(folder / "two"), f"alone={alone}", "--max-pixels", "10000", "--device", "cpu"]
    with ModelServer(arguments) as server:
        yield server


@pytest.fixture
def page(browser: Any, server: ModelServer) -> Iterator[Any]:
    """The page; it must make no request to another server, and log no error to the console."""
    page = browser.new_page()
    urls: list[str] = []
    problems: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.goto(server.url)
    page.get_by_role("heading", name="one", exact=True).wait_for()
    yield page
    assert not [problem for problem in problems if "422" not in problem]
    assert all(url.startswith((server.url, f"blob:{server.url}")) for url in urls)
    page.close()


def model(page: Any, name: str) -> Any:
    return page.get_by_role("region", name=name, exact=True)


def read_download(page: Any, link: Any) -> tuple[str, Image.Image]:
    with page.expect_download() as waiting:
        link.click()
    return waiting.value.suggested_filename, Image.open(io.BytesIO(Path(waiting.value.path()).read_bytes()))


def test_every_model_shows_translation_and_reconstruction_in_both_directions(page: Any, folder: Path) -> None:
    page.get_by_label("Choose an image").set_input_files(folder / "horse.png")
    for name in ("one", "two"):
        section = model(page, name)
        A2B, B2A = (load(folder / name, direction, device="cpu") for direction in ("A2B", "B2A"))
        for direction, first, second in (("A2B", A2B, B2A), ("B2A", B2A, A2B)):
            section.get_by_role("radio", name=direction.replace("2", " → ")).check(force=True)
            playwright.expect(section.get_by_role("status")).to_contain_text("Done in", timeout=TIMEOUT)
            for picture in section.get_by_role("img").all():
                assert picture.evaluate("element => [element.naturalWidth, element.naturalHeight]") == [61, 47]
            translation = first(folder / "horse.png")
            for link, file, expected in (
                ("the translation", f"horse-{name}-{direction}.png", translation),
                ("the reconstruction", f"horse-{name}-{direction}-{direction[::-1]}.png", second(translation)),
            ):
                filename, image = read_download(page, section.get_by_role("link", name=f"Download {link}"))
                assert filename == file
                assert np.array_equal(np.asarray(image), np.asarray(expected))
        assert section.get_attribute("aria-busy") == "false"
    alone = model(page, "alone")
    playwright.expect(alone.get_by_role("status")).to_contain_text("Done in", timeout=TIMEOUT)
    assert "translates in one direction only" in alone.inner_text()
    assert alone.get_by_role("radio").count() == 1


def test_dropped_image_is_translated_and_too_large_image_is_rejected(page: Any, folder: Path) -> None:
    drop = """([bytes, name, type]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
        for (const kind of ["dragenter", "dragover", "drop"])
            document.querySelector("#drop").dispatchEvent(new DragEvent(kind, { dataTransfer: transfer, bubbles: true }));
    }"""
    page.evaluate(drop, [list((folder / "horse.png").read_bytes()), "horse.png", "image/png"])
    playwright.expect(model(page, "two").get_by_role("status")).to_contain_text("Done in", timeout=TIMEOUT)
    assert page.locator("body.over").count() == 0
    make_image(1, (200, 100)).save(folder / "large.png")
    page.get_by_label("Choose an image").set_input_files(folder / "large.png")
    status = model(page, "two").get_by_role("status")
    playwright.expect(status).to_contain_text("200×100 pixels are more than the 10,000 allowed", timeout=TIMEOUT)
    page.evaluate(drop, [list((folder / "horse.png").read_bytes()), "horse.png", "image/png"])
    playwright.expect(status).to_contain_text("Done in", timeout=TIMEOUT)


def test_page_says_what_is_not_used(page: Any, folder: Path) -> None:
    frames = [make_image(index, (30, 20)) for index in range(2)]
    frames[0].save(folder / "walk.gif", save_all=True, append_images=frames[1:])
    page.get_by_label("Choose an image").set_input_files(folder / "walk.gif")
    sentence = "The image has several frames, of which only the first is used."
    playwright.expect(model(page, "one").get_by_role("status")).to_contain_text(sentence, timeout=TIMEOUT)


def test_page_works_with_the_keyboard_and_fits_a_phone(browser: Any, server: ModelServer, folder: Path) -> None:
    phone = browser.new_context(viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
    page = phone.new_page()
    page.goto(server.url)
    page.get_by_role("heading", name="one", exact=True).wait_for()
    assert page.locator("html").get_attribute("lang") == "en"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    chooser.value.set_files(folder / "horse.png")
    one = model(page, "one")
    playwright.expect(one.get_by_role("status")).to_contain_text("Done in", timeout=TIMEOUT)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.value") == "A2B"
    page.keyboard.press("ArrowRight")
    playwright.expect(one.get_by_text("Original, B")).to_be_visible()
    playwright.expect(one.get_by_role("status")).to_contain_text("Done in", timeout=TIMEOUT)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    phone.close()
