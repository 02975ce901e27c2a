"""The perceptual study in a real browser: a whole session, a server crash and a page reload."""

import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from _helpers.patience import PATIENCE
from _helpers.serving import StudyServer, make_folders

pytestmark = pytest.mark.slow(reason="runs a browser")

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


def read(database: Path, query: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(database)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def wait_for_question(page: Any) -> None:
    playwright.expect(page.get_by_role("status")).to_have_text("Which one was real?", timeout=1000 * PATIENCE)


def test_whole_session(browser: Any, tmp_path: Path) -> None:
    """Ten practice trials with feedback and forty counted ones without; no image repeats, and no request reveals a fake."""
    database = tmp_path / "study.sqlite"
    folders = make_folders(tmp_path)
    with StudyServer([*folders, "--database", str(database), "--exposure", "0.1"]) as server:
        page = browser.new_page()
        urls: list[str] = []
        page.on("request", lambda request: urls.append(request.url))
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(server.url)
        page.get_by_role("button", name="Begin").click()
        feedback: list[str] = []
        for number in range(50):
            wait_for_question(page)
            if number % 2:
                page.keyboard.press("ArrowRight")
            else:
                page.get_by_role("button", name="The left one is real").click()
            if number < 10:
                page.get_by_role("button", name="Next").wait_for()
                feedback.append(page.get_by_role("status").inner_text())
                page.keyboard.press("Enter")
            elif number < 49:  # no feedback
                playwright.expect(page.locator("#position")).to_contain_text(
                    f"{number - 8} of 40", timeout=1000 * PATIENCE
                )
                assert page.get_by_role("button", name="Next").count() == 0
        playwright.expect(page.get_by_text("Thank you for taking part")).to_be_visible(timeout=1000 * PATIENCE)
        page.reload()
        playwright.expect(page.get_by_text("Thank you for taking part")).to_be_visible(timeout=1000 * PATIENCE)
        page.close()
    rows = read(database, "SELECT number, practice, real, fake, real_side, state, answer FROM trials ORDER BY number")
    assert [row[0] for row in rows] == list(range(50))
    assert [row[1] for row in rows] == [1] * 10 + [0] * 40
    assert len({row[2] for row in rows}) == len({row[3] for row in rows}) == 50
    assert {row[4] for row in rows} == {"left", "right"}
    assert {row[5] for row in rows} == {"answered"}
    assert [row[6] for row in rows] == ["left", "right"] * 25
    assert ["Right" in text for text in feedback] == [row[4] == row[6] for row in rows[:10]]
    assert len(read(database, "SELECT * FROM participants WHERE finished IS NOT NULL")) == 1
    assert not problems
    assert not [
        url for url in urls if any(word in url for word in ("secret", "real", "fake", "one", "two", str(tmp_path)))
    ]


def test_crash_and_reload_lose_no_answer_and_repeat_no_image(browser: Any, tmp_path: Path) -> None:
    """On a phone: the server is killed between two answers; then the page is reloaded after the images were shown."""
    database = tmp_path / "study.sqlite"
    folders = make_folders(tmp_path, count=12)
    arguments = [*folders, "--database", str(database), "--practice", "1", "--counted", "4"]
    with StudyServer(arguments) as server:
        phone = browser.new_context(viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
        page = phone.new_page()
        page.goto(server.url)
        page.get_by_role("button", name="Begin").tap()
        wait_for_question(page)
        exposed = int(page.locator("#images").get_attribute("data-exposed"))
        assert 1000 <= exposed < 1500  # milliseconds, rounded up to whole frames
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for name in ("The left one is real", "The right one is real"):
            box = page.get_by_role("button", name=name).bounding_box()
            assert box["height"] >= 44
            assert box["y"] + box["height"] <= 640
        page.get_by_role("button", name="The left one is real").tap()
        page.get_by_role("button", name="Next").tap()
        wait_for_question(page)
        server.kill()
        page.get_by_role("button", name="The right one is real").tap()
        playwright.expect(page.get_by_role("status")).to_contain_text("trying again", timeout=1000 * PATIENCE)
        assert len(read(database, "SELECT * FROM trials WHERE state = 'answered'")) == 1
        server.start()
        wait_for_question(page)  # of the next trial: the answer was saved
        assert read(database, "SELECT number, answer FROM trials WHERE state = 'answered'") == [
            (0, "left"),
            (1, "right"),
        ]
        page.reload()  # voids trial 2, which was shown
        wait_for_question(page)
        states = read(database, "SELECT number, state FROM trials ORDER BY number")
        assert states == [(0, "answered"), (1, "answered"), (2, "void"), (3, "shown")]
        for _ in range(2):
            page.get_by_role("button", name="The left one is real").tap()
            wait_for_question(page)
        page.get_by_role("button", name="The left one is real").tap()
        playwright.expect(page.get_by_text("Thank you for taking part")).to_be_visible(timeout=1000 * PATIENCE)
        phone.close()
    rows = read(database, "SELECT real, fake FROM trials")
    assert len({row[0] for row in rows}) == len({row[1] for row in rows}) == 6
    assert len(read(database, "SELECT * FROM trials WHERE state = 'answered' AND practice = 0")) == 4


def test_page_is_accessible(browser: Any, tmp_path: Path) -> None:
    """The page has roles and names for assistive technology, and keys do nothing before the question."""
    folders = make_folders(tmp_path, count=3)
    arguments = [*folders, "--database", str(tmp_path / "study.sqlite"), "--practice", "0", "--counted", "2"]
    with StudyServer(arguments) as server:
        page = browser.new_page()
        page.goto(server.url)
        assert page.locator("html").get_attribute("lang") == "en"
        assert page.get_by_role("heading", level=1).inner_text() == "Real or fake?"
        page.get_by_role("button", name="Begin").focus()
        page.keyboard.press("Enter")
        page.get_by_role("group", name="Which image is real?").wait_for()
        page.keyboard.press("ArrowLeft")
        time.sleep(0.3)
        page.keyboard.press("ArrowLeft")
        wait_for_question(page)
        assert page.get_by_role("progressbar").count() == 1
        assert read(tmp_path / "study.sqlite", "SELECT state FROM trials") == [("shown",)]
        page.close()
