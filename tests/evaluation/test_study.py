"""The perceptual study without a browser: the database, refused requests, many participants and the report."""

import json
import socket
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from _helpers.patience import PATIENCE
from _helpers.serving import StudyServer, make_folders
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from gantoolkit.cli import main
from gantoolkit.errors import DataError
from gantoolkit.evaluation.intervals import wilson
from gantoolkit.evaluation.study import Materials, Protocol, Store, summarize_study
from gantoolkit.evaluation.study.server import make_app, make_guard
from gantoolkit.evaluation.study.store import RefusedError
from gantoolkit.web import guard
from gantoolkit.web.guard import Guard

REAL = [f"real-{number}" for number in range(8)]
FAKES = {"one": [f"one-{number}" for number in range(8)], "two": [f"two-{number}" for number in range(5)]}


def open_store(path: Path, protocol: Protocol | None = None) -> Store:
    return Store(path / "study.sqlite", protocol or Protocol(practice=1, counted=4), REAL, FAKES)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(tmp_path)
    yield store
    store.close()


def finish_session(store: Store, *, fooled: bool) -> str:
    token = store.begin()
    while (trial := store.next_trial(token)) is not None:
        store.mark_shown(token, trial.number)
        other = "right" if trial.real_side == "left" else "left"
        store.answer(token, trial.number, other if fooled else trial.real_side, 500)
    return token


def test_participant_sees_one_algorithm_and_no_image_twice(store: Store) -> None:
    token = store.begin()
    trials = []
    while (trial := store.next_trial(token)) is not None:
        assert store.next_trial(token) == trial  # a reload before it is shown does not void it
        store.mark_shown(token, trial.number)
        store.answer(token, trial.number, "left", 100)
        trials.append(trial)
    assert [trial.practice for trial in trials] == [True] + [False] * 4
    assert len({trial.real for trial in trials}) == len({trial.fake for trial in trials}) == 5
    assert len({trial.algorithm for trial in trials}) == 1


def test_algorithms_are_assigned_evenly(store: Store, tmp_path: Path) -> None:
    for _ in range(10):
        store.begin()
    connection = sqlite3.connect(tmp_path / "study.sqlite")
    rows = connection.execute("SELECT algorithm, COUNT(*) FROM participants GROUP BY algorithm").fetchall()
    connection.close()
    assert rows == [("one", 5), ("two", 5)]


def test_unanswered_trial_is_void_and_replaced(store: Store) -> None:
    token = store.begin()
    first = store.next_trial(token)
    assert first is not None
    store.mark_shown(token, first.number)
    second = store.next_trial(token)  # the page was reloaded
    assert second is not None
    assert (second.number, second.done) == (1, 0)
    assert second.real != first.real
    with pytest.raises(RefusedError, match="can no longer be answered"):
        store.answer(token, first.number, "left", 100)
    with pytest.raises(RefusedError, match="not available now"):
        store.find_image(token, first.number, "left")


def test_repeated_answer_counts_once(store: Store) -> None:
    token = store.begin()
    trial = store.next_trial(token)
    assert trial is not None
    with pytest.raises(RefusedError):
        store.answer(token, trial.number, "left", 100)  # it has not been shown
    store.mark_shown(token, trial.number)
    store.mark_shown(token, trial.number)
    assert store.answer(token, trial.number, "left", 100) == store.answer(token, trial.number, "left", 900)
    with pytest.raises(RefusedError):
        store.answer(token, trial.number, "right", 100)
    following = store.next_trial(token)
    assert following is not None
    assert following.done == 1


def test_session_ends_after_too_many_reloads(store: Store) -> None:
    token = store.begin()
    for _ in range(20):  # four times the number of trials in a session
        trial = store.next_trial(token)
        assert trial is not None
        store.mark_shown(token, trial.number)
    with pytest.raises(RefusedError, match="interrupted too often"):
        store.next_trial(token)


def test_number_of_participants_is_limited(tmp_path: Path) -> None:
    store = open_store(tmp_path, Protocol(max_participants=2))
    store.begin()
    store.begin()
    with pytest.raises(RefusedError, match="already has enough participants"):
        store.begin()
    store.close()


def test_database_accepts_only_its_own_study(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    open_store(tmp_path).close()
    with pytest.raises(DataError, match=r"belongs to another study \(of one, two .* choose another --database"):
        open_store(tmp_path, Protocol(practice=3, counted=4))
    with pytest.raises(DataError, match="or the images have changed"):
        Store(tmp_path / "study.sqlite", Protocol(practice=1, counted=4), REAL[1:], FAKES)
    (tmp_path / "no.sqlite").write_bytes(b"no database" * 200)
    with pytest.raises(DataError, match="cannot be opened as a study database"):
        Store(tmp_path / "no.sqlite", Protocol(), REAL, FAKES)


def test_database_does_not_contain_participant_tokens(store: Store, tmp_path: Path) -> None:
    token = finish_session(store, fooled=True)
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"answered" in content
    assert token.encode() not in content


@pytest.fixture
def materials(tmp_path: Path) -> Materials:
    make_folders(tmp_path, count=3)
    return Materials.open(tmp_path / "real", {"one": tmp_path / "one", "two": tmp_path / "two"}, side=32)


@pytest.fixture
def app(tmp_path: Path, materials: Materials) -> Iterator[Guard]:
    names = {name: [path.name for path in files] for name, files in materials.fakes.items()}
    store = Store(tmp_path / "study.sqlite", Protocol(), [path.name for path in materials.real], names)
    yield make_guard(make_app(store, materials), ["study.example"], "secret")
    store.close()


ORIGIN = {"origin": "https://study.example"}


@pytest.fixture
def visitor(app: Guard) -> Iterator[TestClient]:
    with TestClient(app, base_url="https://study.example") as client:
        assert client.get("/?token=secret", follow_redirects=False).headers["location"] == "/"
        yield client


def test_requests_without_the_token_are_rejected(app: Guard) -> None:
    with TestClient(app, base_url="https://study.example") as client:
        for address in ("/", "/study.js", "/?token=wrong", "/image/0/left"):
            assert client.get(address).status_code == 403
        assert client.post("/begin", headers=ORIGIN).status_code == 403


def test_other_hosts_and_origins_are_rejected(visitor: TestClient) -> None:
    assert visitor.get("/", headers={"host": "evil.example"}).status_code == 400
    assert visitor.post("/begin").status_code == 403
    for origin in ("https://evil.example", "null", "https://[", "https://study.example.evil.example"):
        assert visitor.post("/begin", headers={"origin": origin}).status_code == 403
    assert visitor.post("/begin", headers=ORIGIN).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no json",
        b"[]",
        b'{"trial": -1, "side": "left", "milliseconds": 1}',
        b'{"trial": 0, "side": "up", "milliseconds": 1}',
        b'{"trial": 0, "side": "left", "milliseconds": 1e99}',
        b'{"trial": 0, "side": "left", "milliseconds": 1, "more": 1}',
    ],
    ids=range(7),
)
def test_invalid_requests_are_rejected(visitor: TestClient, body: bytes) -> None:
    visitor.post("/begin", headers=ORIGIN)
    response = visitor.post("/answer", content=body, headers=ORIGIN)
    assert response.status_code == 422
    assert response.json() == {"reason": "invalid request"}


def test_request_sizes_and_rates_are_limited(app: Guard, visitor: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert visitor.post("/answer", content=b" " * 3000, headers=ORIGIN).status_code == 413
    monkeypatch.setattr(guard, "_BURST", 20.0)
    now = 1e6
    monkeypatch.setattr(app, "clock", lambda: now)
    codes = [visitor.get("/study.css").status_code for _ in range(30)]
    assert codes == [200] * 20 + [429] * 10
    now += 0.05  # at 200 a second, ten more
    assert [visitor.get("/study.css").status_code for _ in range(12)] == [200] * 10 + [429] * 2


def test_images_have_no_metadata_and_belong_to_the_current_trial(visitor: TestClient, materials: Materials) -> None:
    assert visitor.get("/image/0/left").status_code == 409
    visitor.post("/begin", headers=ORIGIN)
    responses = [visitor.get(f"/image/0/{side}") for side in ("left", "right")]
    assert all(response.content.startswith(b"\x89PNG") and b"secret" not in response.content for response in responses)
    known = [materials.render(path) for path in (*materials.real, *materials.fakes["one"], *materials.fakes["two"])]
    assert all(response.content in known for response in responses)
    assert "default-src 'none'" in responses[0].headers["content-security-policy"]
    assert visitor.get("/image/1/left").status_code == 409
    for address in ("/image/0/..%2f..%2fetc", "/image/-1/left", "/../study.py", "/image/99999999999999999999/left"):
        assert visitor.get(address).status_code in (404, 422), address


@pytest.mark.slow(reason="soak test: fifty participants in threads, about 10 s")
def test_fifty_concurrent_participants(tmp_path: Path) -> None:
    """Each completes a session of ten trials, in one server process."""
    folders = make_folders(tmp_path, count=12)
    database = tmp_path / "study.sqlite"
    problems: list[str] = []

    def take_part(url: str, number: int) -> None:
        try:
            with requests.Session() as person:
                person.headers["origin"] = url

                def post(path: str, **body: object) -> dict[str, dict[str, int]]:
                    while (
                        response := person.post(url + path, data=json.dumps(body), timeout=PATIENCE)
                    ).status_code == 429:
                        threading.Event().wait(0.5)
                    response.raise_for_status()
                    return response.json()

                state = post("/begin")
                while not state.get("over"):
                    trial = state["trial"]["number"]
                    while (image := person.get(f"{url}/image/{trial}/left", timeout=PATIENCE)).status_code == 429:
                        threading.Event().wait(0.5)
                    image.raise_for_status()
                    post("/shown", trial=trial)
                    post("/answer", trial=trial, side="left" if number % 2 else "right", milliseconds=7)
                    state = post("/next")
        except Exception as error:
            problems.append(repr(error))

    with StudyServer([*folders, "--database", str(database), "--practice", "2", "--counted", "8"]) as server:
        people = [threading.Thread(target=take_part, args=(server.url, number)) for number in range(50)]
        for person in people:
            person.start()
        for person in people:
            person.join()
    assert not problems
    results = summarize_study(database)
    counts = [(result.participants, result.unfinished, result.trials, result.void) for result in results]
    assert counts == [(25, 0, 200, 0)] * 2
    assert all(result.interval == "participants" for result in results)


def test_report_matches_the_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = open_store(tmp_path)
    for fooled in (True, True, False, False, True, False):
        finish_session(store, fooled=fooled)
    token = store.begin()
    trial = store.next_trial(token)
    assert trial is not None
    store.mark_shown(token, trial.number)
    store.close()
    database = tmp_path / "study.sqlite"
    connection = sqlite3.connect(database)
    query = (
        "SELECT p.algorithm, AVG(t.answer != t.real_side) FROM trials t JOIN participants p ON p.id = t.participant "
        "WHERE t.practice = 0 AND t.state = 'answered' AND p.finished IS NOT NULL GROUP BY p.algorithm"
    )
    expected = dict(connection.execute(query).fetchall())
    connection.close()
    assert {result.algorithm: result.share.value for result in summarize_study(database)} == expected
    assert main(["study", "report", str(database), "--out", str(tmp_path / "out")]) == 0
    assert "fooled" in capsys.readouterr().out
    study = json.loads((tmp_path / "out" / "study.json").read_text())
    assert sum(row["participants"] for row in study["algorithms"]) == 6
    assert sum(row["unfinished"] for row in study["algorithms"]) == 1
    page = (tmp_path / "out" / "study.html").read_text()
    assert "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )


def test_report_without_finished_sessions(store: Store, tmp_path: Path) -> None:
    store.begin()
    assert main(["study", "report", str(tmp_path / "study.sqlite"), "--out", str(tmp_path / "out")]) == 0
    assert "Nobody has finished" in (tmp_path / "out" / "study.html").read_text()


@given(trials=st.integers(1, 200), data=st.data())
def test_wilson_interval_contains_the_share_and_stays_within_bounds(trials: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, trials))
    share = wilson(hits, trials)
    assert share.low is not None
    assert share.high is not None
    assert 0 <= share.low <= share.value + 1e-12
    assert share.value - 1e-12 <= share.high <= 1
    assert share.high - share.low < 1


def test_wilson_interval_matches_published_values() -> None:
    """Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    known = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (hits, trials), interval in known.items():
        share = wilson(hits, trials)
        assert (share.low, share.high) == pytest.approx(interval, abs=5e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fake", "nonsense"], "write NAME=DIR"),
        (["--fake", "one={root}/one", "--fake", "one={root}/two"], "two algorithms of the name one"),
        (["--fake", "one={root}/none"], "no such folder"),
        (["--fake", "one={root}/one", "--host", "0.0.0.0"], "needs --name"),
    ],
    ids=["format", "duplicate", "missing", "no name"],
)
def test_invalid_arguments_are_explained(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_folders(tmp_path, count=2)
    options = [word.format(root=tmp_path) for word in arguments]
    database = str(tmp_path / "study.sqlite")
    assert main(["study", "serve", "--real", str(tmp_path / "real"), *options, "--database", database]) == 2
    assert message in capsys.readouterr().err


def test_port_in_use_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["study", "serve", *make_folders(tmp_path, count=2), "--database", str(tmp_path / "study.sqlite")]
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert main([*arguments, "--port", str(other.getsockname()[1])]) == 2
    assert "cannot listen on" in capsys.readouterr().err
