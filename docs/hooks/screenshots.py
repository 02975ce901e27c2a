"""Take the screenshots for the tutorials during the build, from small runs on built-in photographs, in a real browser."""

import contextlib
import io
import logging
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from PIL import Image, ImageDraw

sys.path.insert(
    0, str(Path(__file__).parents[2] / "tests")
)  # the tests find a browser and start servers in the same way
from _helpers.chromium import NoBrowserError, find_chromium
from _helpers.serving import ModelServer, StudyServer

from gantoolkit.cli import main
from gantoolkit.demo import make_demo_set
from gantoolkit.evaluation.study import Protocol, Store

LOG = logging.getLogger("mkdocs.hooks.screenshots")
FOLDER = "images/screenshots"
SETTINGS = {
    "generator.width": 16,
    "generator.blocks": 3,
    "generator.norm": "none",
    "generator.upsampling": "resize",
    "discriminator.width": 16,
    "discriminator.layers": 2,
    "optimizer.lr": 4e-4,
    "data.resize": "none",
    "data.crop_size": 64,
    "training.epochs": 3,
    "training.batch_size": 2,
    "training.log_every": 10,
    "training.sample_every": 200,
}
"""Close to the recipe `demo`; trains a visible effect within a minute."""
NAMES = (
    "evaluate-table",
    "evaluate-worst",
    "health",
    "ablate",
    "study-begin",
    "study-images",
    "study-practice",
    "study-phone",
    "study-report",
    "serve",
    "serve-phone",
)
WIDE, PHONE = {"width": 1100, "height": 760}, {"width": 390, "height": 780}

_screenshots: dict[str, bytes] = {}
"""Reused by later builds of `mkdocs serve`."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the screenshots to the site; without a browser, placeholders that say so."""
    if not _screenshots:
        try:
            chromium = find_chromium()
        except NoBrowserError as error:
            LOG.info("no screenshots: %s", error)
            _screenshots.update(dict.fromkeys(NAMES, _placeholder()))
        else:
            with tempfile.TemporaryDirectory(prefix="gantoolkit-screenshots-") as folder:
                _screenshots.update(take(Path(folder), chromium))
    if set(_screenshots) != set(NAMES):
        difference = sorted(set(NAMES) ^ set(_screenshots))
        raise PluginError(f"screenshots: NAMES and the screenshots differ in {difference}")
    for name, png in _screenshots.items():
        files.append(File.generated(config, f"{FOLDER}/{name}.png", content=png))
    return files


def take(folder: Path, chromium: str) -> dict[str, bytes]:
    """Train and evaluate runs, start a study and a server, and take a screenshot of each page."""
    from playwright.sync_api import sync_playwright

    data, ablation, scores = make_demo_set(folder / "data", crops=100), folder / "ablation", folder / "scores"
    settings = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
    _run("ablate", "ablations/cycle_alone", "cyclegan", "--data", data, "--out", ablation, *settings, "--images", 24)
    runs = {
        "cycle_alone": ablation / "ablations" / "cycle_alone" / "seed-0",
        "cyclegan": ablation / "cyclegan" / "seed-0",
    }
    _run("evaluate", *runs.values(), "--out", scores, "--images", 24)
    for name, run in runs.items():
        _run("translate", run, "--direction", "A2B", data / "testA", "--out", folder / name)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            return {
                **_take_pages(browser, *(path / "report.html" for path in (scores, runs["cycle_alone"], ablation))),
                **_take_study(browser, folder, data),
                **_take_serve(browser, runs, next(iter(sorted((data / "testA").iterdir())))),
            }
        finally:
            browser.close()


def _take_pages(browser: Any, scores: Path, run: Path, ablation: Path) -> dict[str, bytes]:
    page = browser.new_page(viewport=WIDE)
    page.goto(scores.as_uri())
    screenshots = {"evaluate-table": page.screenshot()}
    page.get_by_role("heading", name="worst, median and best images").first.evaluate(
        "heading => heading.scrollIntoView()"
    )
    screenshots["evaluate-worst"] = page.screenshot()
    page.goto(run.as_uri())
    page.get_by_role("heading", name="Health").evaluate("heading => heading.scrollIntoView()")
    screenshots["health"] = page.screenshot(clip={"x": 0, "y": 0, "width": WIDE["width"], "height": 620})
    page.goto(ablation.as_uri())
    screenshots["ablate"] = page.screenshot()
    page.close()
    return screenshots


def _take_study(browser: Any, folder: Path, data: Path) -> dict[str, bytes]:
    """The pages of the first trial as a participant sees them, and a report of random answers."""
    fakes = [f"cycle_alone={folder / 'cycle_alone'}", f"cyclegan={folder / 'cyclegan'}"]
    arguments = ["--real", str(data / "testB"), *(word for fake in fakes for word in ("--fake", fake))]
    # Four seconds instead of one, so that the screenshot is taken while the images are visible.
    arguments += ["--database", str(folder / "study.sqlite"), "--exposure", "4"]
    screenshots: dict[str, bytes] = {}
    with StudyServer(arguments) as server:
        page = browser.new_page(viewport=WIDE)
        page.goto(server.url)
        page.get_by_role("button", name="Begin").wait_for()
        screenshots["study-begin"] = page.locator("main").screenshot()
        page.get_by_role("button", name="Begin").click()
        page.locator("#images.shown").wait_for()
        screenshots["study-images"] = page.locator("main").screenshot()
        page.get_by_text("Which one was real?").wait_for(timeout=20_000)
        page.get_by_role("button", name="The left one is real").click()
        page.get_by_role("button", name="Next").wait_for()
        screenshots["study-practice"] = page.locator("main").screenshot()
        page.close()
        phone = browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True)
        page = phone.new_page()
        page.goto(server.url)
        page.get_by_role("button", name="Begin").tap()
        page.get_by_text("Which one was real?").wait_for(timeout=20_000)
        screenshots["study-phone"] = page.screenshot()
        phone.close()
    _answer_at_random(folder / "random.sqlite")
    _run("study", "report", folder / "random.sqlite", "--out", folder / "report")
    page = browser.new_page(viewport=WIDE)
    page.goto((folder / "report" / "study.html").as_uri())
    screenshots["study-report"] = page.screenshot()
    page.close()
    return screenshots


def _take_serve(browser: Any, runs: dict[str, Path], image: Path) -> dict[str, bytes]:
    screenshots: dict[str, bytes] = {}
    phone = {"viewport": PHONE, "has_touch": True, "is_mobile": True, "color_scheme": "dark"}
    with ModelServer([f"{name}={run}" for name, run in runs.items()]) as server:
        for name, kind in {"serve": {"viewport": WIDE}, "serve-phone": phone}.items():
            page = browser.new_context(**kind).new_page()
            page.goto(server.url)
            page.get_by_label("Choose an image").set_input_files(image)
            for model in runs:
                page.get_by_role("region", name=model, exact=True).get_by_text("Done in").wait_for()
            screenshots[name] = page.screenshot(full_page=True)
            page.context.close()
    return screenshots


def _answer_at_random(database: Path) -> None:
    """Sixteen participants; the fakes of `cyclegan` fool them in 30 % of the trials, those of `cycle_alone` in 10 %."""
    rng = random.Random(1)
    images = [str(number) for number in range(60)]
    store = Store(database, Protocol(), images, {"cycle_alone": images, "cyclegan": images})
    for _ in range(16):
        token = store.begin()
        while (trial := store.next_trial(token)) is not None:
            store.mark_shown(token, trial.number)
            fooled = rng.random() < {"cycle_alone": 0.1, "cyclegan": 0.3}[trial.algorithm]
            wrong = "right" if trial.real_side == "left" else "left"
            store.answer(token, trial.number, wrong if fooled else trial.real_side, rng.randint(300, 900))
    store.close()


def _run(*arguments: object) -> None:
    words = [str(argument) for argument in arguments]
    with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.redirect_stderr(output):
        code = main(words)
    if code:
        raise PluginError(f"screenshots: gantoolkit {' '.join(words)}: exit code {code}\n{output.getvalue()}")


def _placeholder() -> bytes:
    image = Image.new("RGB", (640, 80), "white")
    ImageDraw.Draw(image).text(
        (20, 30), "No screenshot: Chromium was not available when these pages were built.", fill="#555"
    )
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()
