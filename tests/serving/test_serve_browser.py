"""The page of `gantoolkit serve` as people meet it: in a real browser."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _helpers.serving import ModelServer
from _helpers.small import make_dataset, make_image, make_tiny
from PIL import Image

import gantoolkit
from gantoolkit import load

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
SOON = 30_000


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
    """The page, which has to make no request elsewhere and to complain of nothing in the console."""
    page = browser.new_page()
    asked: list[str] = []
    problems: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.goto(server.url)
    page.get_by_role("heading", name="one", exact=True).wait_for()
    yield page
    assert not [problem for problem in problems if "422" not in problem]
    assert all(url.startswith((server.url, f"blob:{server.url}")) for url in asked)
    page.close()


def model(page: Any, name: str) -> Any:
    return page.get_by_role("region", name=name, exact=True)


def read_download(page: Any, link: Any) -> tuple[str, Image.Image]:
    with page.expect_download() as waiting:
        link.click()
    return waiting.value.suggested_filename, Image.open(io.BytesIO(Path(waiting.value.path()).read_bytes()))


def test_every_model_shows_translation_and_way_back_in_both_directions(page: Any, folder: Path) -> None:
    page.get_by_label("Choose an image").set_input_files(folder / "horse.png")
    for name in ("one", "two"):
        here = model(page, name)
        forth, back = (load(folder / name, direction, device="cpu") for direction in ("A2B", "B2A"))
        for direction, first, second in (("A2B", forth, back), ("B2A", back, forth)):
            here.get_by_role("radio", name=direction.replace("2", " → ")).check(force=True)
            playwright.expect(here.get_by_role("status")).to_contain_text("Done in", timeout=SOON)
            for picture in here.get_by_role("img").all():
                assert picture.evaluate("one => [one.naturalWidth, one.naturalHeight]") == [61, 47]
            made = first(folder / "horse.png")
            for link, file, right in (
                ("the translation", f"horse-{name}-{direction}.png", made),
                ("the way back", f"horse-{name}-{direction}-{direction[::-1]}.png", second(made)),
            ):
                named, image = read_download(page, here.get_by_role("link", name=f"Download {link}"))
                assert named == file
                assert np.array_equal(np.asarray(image), np.asarray(right))
        assert here.get_attribute("aria-busy") == "false"
    alone = model(page, "alone")
    playwright.expect(alone.get_by_role("status")).to_contain_text("Done in", timeout=SOON)
    assert "knows no way back" in alone.inner_text()
    assert alone.get_by_role("radio").count() == 1


def test_an_image_is_dropped_and_one_that_is_no_image_is_refused_in_words(page: Any, folder: Path) -> None:
    drop = """([bytes, name, type]) => {
        const moved = new DataTransfer();
        moved.items.add(new File([new Uint8Array(bytes)], name, { type }));
        for (const kind of ["dragenter", "dragover", "drop"])
            document.querySelector("#drop").dispatchEvent(new DragEvent(kind, { dataTransfer: moved, bubbles: true }));
    }"""
    page.evaluate(drop, [list((folder / "horse.png").read_bytes()), "horse.png", "image/png"])
    playwright.expect(model(page, "two").get_by_role("status")).to_contain_text("Done in", timeout=SOON)
    assert page.locator("body.over").count() == 0
    make_image(1, (200, 100)).save(folder / "large.png")
    page.get_by_label("Choose an image").set_input_files(folder / "large.png")
    said = model(page, "two").get_by_role("status")
    playwright.expect(said).to_contain_text("200×100 pixels are more than the 10,000 allowed", timeout=SOON)
    page.evaluate(drop, [list((folder / "horse.png").read_bytes()), "horse.png", "image/png"])
    playwright.expect(said).to_contain_text("Done in", timeout=SOON)


def test_keys_alone_are_enough_and_a_phone_is_wide_enough(browser: Any, server: ModelServer, folder: Path) -> None:
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
    playwright.expect(one.get_by_role("status")).to_contain_text("Done in", timeout=SOON)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.value") == "A2B"
    page.keyboard.press("ArrowRight")
    playwright.expect(one.get_by_text("Original, B")).to_be_visible()
    playwright.expect(one.get_by_role("status")).to_contain_text("Done in", timeout=SOON)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    phone.close()
