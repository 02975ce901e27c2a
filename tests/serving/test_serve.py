"""`gantoolkit serve` without a browser: what it answers, what it refuses, and that it keeps nothing."""

import asyncio
import gc
import io
import json
import signal
import socket
import struct
import tempfile
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from _helpers.serving import ModelServer
from _helpers.small import make_dataset, make_image, make_tiny
from PIL import Image
from starlette.routing import Route
from starlette.testclient import TestClient

import gantoolkit
from gantoolkit import load
from gantoolkit.cli import main
from gantoolkit.data.images import TooManyPixelsError, decode_image, read_image
from gantoolkit.errors import CheckpointError, DataError
from gantoolkit.serving import Queue, open_models, server
from gantoolkit.serving.description import Health, Limits, ModelList, Problem, describe_api
from gantoolkit.serving.queue import ClosedError, FullError
from gantoolkit.serving.server import make_app, make_guard

LIMITS = Limits(bytes=60_000, pixels=10_000)
PNG = {"content-type": "image/png"}
A2B = "/api/models/horses/A2B"


def encode(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


PICTURE = encode(make_image(3, (37, 30)))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve")
    recipe = make_tiny().swap({"data.channels_A": 1, "identity_weight": 0.0})
    return gantoolkit.train(recipe, make_dataset(folder / "data"), folder / "horses", device="cpu", stop_at=2).path


@pytest.fixture
def queue() -> Iterator[Queue]:
    queue = Queue(4)
    yield queue
    queue.wait()


class Checked(TestClient):
    """Every answer below /api has a status and a content that the description speaks of."""

    def request(self, method: str, url: Any, **options: Any) -> Any:
        answer = super().request(method, url, **options)
        paths, address = describe_api(LIMITS)["paths"], str(url).partition("?")[0]
        shape = "/api/models/{name}/{direction}" if address.startswith("/api/models/") else address
        if method.lower() in paths.get(shape, {}):
            responses = paths[shape][method.lower()]["responses"]
            assert str(answer.status_code) in responses, (method, url, answer.status_code)
            content = responses[str(answer.status_code)]["content"]
            assert answer.headers["content-type"] in content
        if answer.status_code >= 400:
            said = Problem.model_validate(answer.json(), extra="forbid").error
            assert said
            assert "\n" not in said
        return answer


@pytest.fixture
def visitor(run: Path, queue: Queue) -> Iterator[TestClient]:
    models = open_models([run, f"alone={run / 'generators' / 'B2A.safetensors'}"], device="cpu")
    app = make_guard(make_app(models, queue, LIMITS), ["localhost"], None, LIMITS)
    with Checked(app, base_url="http://localhost") as client:
        yield client


class TestAnswers:
    def test_a_translation_is_the_translators_own_and_the_way_back_that_of_the_answer(
        self, visitor: TestClient, run: Path
    ) -> None:
        forth, back = (load(run, direction, device="cpu") for direction in ("A2B", "B2A"))
        made = forth(Image.open(io.BytesIO(PICTURE)))
        answer = visitor.post(A2B, content=PICTURE, headers=PNG)
        assert answer.status_code == 200
        assert answer.content == encode(made)
        assert Image.open(io.BytesIO(answer.content)).size == (37, 30)
        returned = visitor.post("/api/models/horses/B2A", content=answer.content, headers=PNG)
        assert returned.content == encode(back(made))
        assert Image.open(io.BytesIO(returned.content)).mode == "L"  # of the one channel that A has
        assert visitor.get("/api/health").json() == {"waiting": 0, "places": 4, "served": 2}

    def test_what_is_served_is_listed(self, visitor: TestClient) -> None:
        held = ModelList.model_validate(visitor.get("/api/models").json(), extra="forbid")
        assert [(model.name, [each.direction for each in model.directions]) for model in held.models] == [
            ("horses", ["A2B", "B2A"]),
            ("alone", ["B2A"]),
        ]
        assert [(each.in_channels, each.out_channels) for each in held.models[0].directions] == [(1, 3), (3, 1)]
        assert held.limits == LIMITS
        Health.model_validate(visitor.get("/api/health").json(), extra="forbid")

    def test_every_route_is_described_and_everything_described_is_a_route(self, visitor: TestClient) -> None:
        described = visitor.get("/api/openapi.json").json()
        assert described == json.loads(json.dumps(describe_api(LIMITS)))
        routes = make_app({}, Queue(1), LIMITS).routes
        real = {
            (route.path, method.lower())
            for route in routes
            if isinstance(route, Route) and route.path.startswith("/api/")
            for method in (route.methods or set()) - {"HEAD"}
        }
        assert real == {(path, method) for path, methods in described["paths"].items() for method in methods}
        references = set(_find_references(described))
        assert references == {f"#/components/schemas/{name}" for name in described["components"]["schemas"]}
        names = [
            parameter["name"]
            for parameter in described["paths"][f"{'/api/models/{name}/{direction}'}"]["post"]["parameters"]
        ]
        assert names == ["name", "direction"]

    @pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP"])
    def test_bytes_are_read_as_files_are(self, form: str, tmp_path: Path) -> None:
        image, path = make_image(5), tmp_path / "image"
        exif = Image.Exif()
        exif[274] = 6  # to be turned
        path.write_bytes(encode(image, form, **({"exif": exif} if form in ("JPEG", "TIFF", "WEBP", "PNG") else {})))
        for channels in (1, 3):
            read = decode_image(path.read_bytes(), channels, name="the upload")
            assert read.mode == read_image(path, channels).mode
            assert np.array_equal(np.asarray(read), np.asarray(read_image(path, channels)))
        with pytest.raises(TooManyPixelsError, match=r"(40×36|36×40) pixels are more than the 1,439 allowed"):
            decode_image(path.read_bytes(), name="the upload", max_pixels=1439)

    def test_the_page_needs_nothing_from_elsewhere(self, visitor: TestClient) -> None:
        page = visitor.get("/")
        assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        for address in ("/serve.css", "/serve.js", "/icon.svg"):
            assert f'"{address}"' in page.text
            assert visitor.get(address).status_code == 200
        assert "style=" not in page.text
        assert page.text.count("<script") == 1


def _find_references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        yield from (value for key, value in part.items() if key == "$ref")
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from _find_references(each)


def bomb() -> bytes:
    """A few bytes of PNG that say they are 100,000 × 100,000 pixels."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    parts = [struct.pack(">I", len(c)) + kind + c + struct.pack(">I", zlib.crc32(kind + c)) for kind, c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


class TestRefusals:
    @pytest.mark.parametrize(
        ("body", "kind", "status", "said"),
        [
            (b"", "image/png", 400, "no image in the request's body"),
            (encode(make_image(1), "JPEG")[:700], "image/jpeg", 400, "damaged"),
            (b"<!doctype html><script>alert(1)</script>", "image/png", 400, "is not a readable image"),
            (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "image/png", 400, "is not a readable image"),
            (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "image/svg+xml", 415, "are read"),
            (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "image/png", 400, "is not a readable image"),
            (PICTURE, "text/html", 415, "are read"),
            (PICTURE, "multipart/form-data; boundary=x", 415, "are read"),
            (PICTURE, "", 415, "are read"),
            (encode(Image.new("F", (4, 4)), "TIFF"), "image/tiff", 400, "does not define which value is white"),
            (bomb(), "image/png", 422, "allowed"),
            (encode(Image.new("L", (101, 100))), "image/png", 422, "101×100 pixels are more than the 10,000 allowed"),
            (bytes(60_001), "image/png", 413, "no more than 60,000 bytes"),
        ],
        ids=[
            "none",
            "cut",
            "html",
            "svg",
            "svg-said",
            "eps",
            "said",
            "form",
            "unsaid",
            "float",
            "bomb",
            "pixels",
            "bytes",
        ],
    )
    def test_hostile_bodies(self, visitor: TestClient, body: bytes, kind: str, status: int, said: str) -> None:
        answer = visitor.post(A2B, content=body, headers={"content-type": kind})
        assert answer.status_code == status
        assert said in answer.json()["error"]
        assert visitor.post(A2B, content=PICTURE, headers={"content-type": "image/PNG; x=y"}).status_code == 200

    @pytest.mark.parametrize(
        "address",
        [
            "/api/models/zebras/A2B",
            "/api/models/horses/A2C",
            "/api/models/alone/A2B",
            "/api/models/..%2f..%2fetc/passwd",
            "/api/models/%2e%2e/A2B",
            "/api/models/horses%00/A2B",
            "/api/models/horses/../../../etc/passwd",
            f"/api/models/{'a' * 5000}/A2B",
        ],
    )
    def test_what_is_not_served_is_not_found(self, visitor: TestClient, address: str) -> None:
        assert visitor.post(address, content=PICTURE, headers=PNG).status_code == 404

    def test_no_address_is_a_path(self, visitor: TestClient) -> None:
        for address in ("/server.py", "/page/index.html", "/..%2fserver.py", "/%2e%2e/server.py", "/serve.js/", "/api"):
            assert visitor.get(address).status_code == 404, address

    def test_wrong_methods(self, visitor: TestClient) -> None:
        assert visitor.get(A2B).status_code == 405
        assert visitor.post("/api/models").status_code == 405
        for method in ("PUT", "DELETE", "OPTIONS", "PATCH"):
            assert visitor.request(method, A2B).status_code == 405

    def test_another_host_or_origin_is_turned_away(self, visitor: TestClient) -> None:
        assert visitor.get("/api/models", headers={"host": "evil.example"}).status_code == 400
        assert visitor.post(A2B, content=PICTURE, headers={**PNG, "host": "evil.example"}).status_code == 400
        for origin, status in {"http://evil.example": 403, "null": 403, "http://localhost": 200}.items():
            answer = visitor.post(A2B, content=PICTURE, headers={**PNG, "origin": origin})
            assert answer.status_code == status

    def test_a_mistake_of_ours_is_a_sentence_too(
        self, run: Path, queue: Queue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server, "decode_image", lambda *_, **__: 1 / 0)
        app = make_guard(make_app(open_models([run], device="cpu"), queue, LIMITS), ["localhost"], None, LIMITS)
        with Checked(app, base_url="http://localhost", raise_server_exceptions=False) as client:
            assert client.post(A2B, content=PICTURE, headers=PNG).status_code == 500
            assert queue.taken == 0

    def test_a_size_that_cannot_be_translated_is_a_sentence(
        self, visitor: TestClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise DataError("an image of 37×30 pixels cannot be translated: not enough memory")

        monkeypatch.setattr("gantoolkit.inference.Translator.translate", fail)
        assert visitor.post(A2B, content=PICTURE, headers=PNG).status_code == 422

    def test_a_token_is_asked_for(self, run: Path, queue: Queue) -> None:
        app = make_guard(make_app(open_models([run], device="cpu"), queue, LIMITS), ["localhost"], "secret", LIMITS)
        with Checked(app, base_url="http://localhost") as client:
            for address in ("/", "/serve.js", "/api/models", "/api/health", "/api/openapi.json", "/?token=wrong"):
                assert client.get(address).status_code == 401
            for brought in ("Bearer wrong", "Basic secret", "Bearer", "Bearer sécret", "secret"):
                headers = {**PNG, "authorization": brought.encode("latin-1")}
                refused = client.post(A2B, content=PICTURE, headers=headers)
                assert refused.status_code == 401
                assert refused.headers["www-authenticate"] == "Bearer"
            assert (
                client.post(A2B, content=PICTURE, headers={**PNG, "authorization": "Bearer secret"}).status_code == 200
            )
            assert client.get("/?token=secret", follow_redirects=False).headers["location"] == "/"
            assert client.get("/api/models").status_code == 200  # with the cookie


class TestQueue:
    def test_a_full_queue_says_when_to_come_again(self, visitor: TestClient, queue: Queue) -> None:
        with queue.place(), queue.place(), queue.place():
            assert visitor.post(A2B, content=PICTURE, headers=PNG).status_code == 200
            with queue.place():
                answer = visitor.post(A2B, content=PICTURE, headers=PNG)
                assert answer.status_code == 503
                assert answer.headers["retry-after"] == "1"
                assert visitor.get("/api/health").json()["waiting"] == 4
        assert visitor.post(A2B, content=PICTURE, headers=PNG).status_code == 200

    def test_one_at_a_time_in_order_and_who_leaves_gives_up_turn_and_memory(self) -> None:
        class Upload:
            pass

        done: list[int] = []

        async def use() -> None:
            queue, gate = Queue(5), threading.Event()
            first = asyncio.ensure_future(queue.compute(gate.wait))
            uploads = [Upload() for _ in range(3)]
            kept = [weakref.ref(upload) for upload in uploads]

            async def compute(number: int, upload: Upload) -> None:
                await queue.compute(partial(lambda number, upload: done.append(number), number, upload))

            others = [asyncio.ensure_future(compute(number, upload)) for number, upload in enumerate(uploads)]
            uploads.clear()
            await asyncio.sleep(0.05)
            others[1].cancel()
            await asyncio.wait([others[1]])
            del others[1]
            gc.collect()
            freed = [ref() is None for ref in kept]  # while the first is still computed
            gate.set()
            assert freed == [False, True, False]
            await asyncio.gather(first, *others)
            assert queue.served == 3
            queue.close()
            queue.wait()

        asyncio.run(use())
        assert done == [0, 2]

    def test_a_queue_that_is_closed_tells_all_that_wait_and_ends_what_it_has_begun(self) -> None:
        ended: list[bool] = []

        async def use() -> None:
            queue, gate = Queue(5), threading.Event()
            jobs = [asyncio.ensure_future(queue.compute(lambda: ended.append(gate.wait()))) for _ in range(3)]
            upload = asyncio.ensure_future(queue.unless_closed(asyncio.sleep(60)))
            await asyncio.sleep(0.05)
            queue.close()
            found = await asyncio.wait_for(asyncio.gather(*jobs, upload, return_exceptions=True), 10)
            gate.set()
            assert [type(each) for each in found] == [ClosedError] * 4
            with pytest.raises(ClosedError), queue.place():
                pass
            queue.wait()

        asyncio.run(use())
        assert ended == [True]

    def test_how_long_to_wait_follows_from_what_images_took(self) -> None:
        async def use() -> None:
            queue = Queue(2)
            await queue.compute(lambda: time.sleep(0.6))
            with queue.place(), queue.place():
                with pytest.raises(FullError) as full, queue.place():
                    pass
                assert full.value.seconds == 2
            queue.wait()

        asyncio.run(use())


class TestModels:
    def test_names(self, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        forth, back = (run / "generators" / f"{direction}.safetensors" for direction in ("A2B", "B2A"))
        models = open_models([run, f"both={forth}", f"both={back}", back], device="cpu")
        assert {name: list(model.translators) for name, model in models.items()} == {
            "horses": ["A2B", "B2A"],
            "both": ["A2B", "B2A"],
            "B2A": ["B2A"],
        }
        monkeypatch.chdir(run)
        assert list(open_models(["."], device="cpu")) == ["horses"]

    @pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\nb", "a" * 101])
    def test_a_name_that_no_address_holds(self, run: Path, name: str) -> None:
        with pytest.raises(DataError, match="cannot be the name of a model"):
            open_models([f"{name}={run}"])

    def test_two_of_one_name_and_none(self, run: Path, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"there is a model 'horses' already that translates A2B; .* NAME="):
            open_models([run, run], device="cpu")
        with pytest.raises(CheckpointError):
            open_models([tmp_path / "none"], device="cpu")


class TestServer:
    """In a process of its own."""

    @pytest.fixture
    def served(self, run: Path) -> Iterator[ModelServer]:
        with ModelServer([str(run), "--max-megabytes", "1", "--queue", "3", "--device", "cpu"]) as served:
            yield served

    def test_bodies_that_lie_about_their_length(self, served: ModelServer) -> None:
        def send(*headers: str, body: bytes = b"", chunks: int = 0) -> bytes:
            with socket.create_connection(("127.0.0.1", served.port), timeout=20) as line:
                head = (f"POST {A2B} HTTP/1.1", "Host: localhost", "Content-Type: image/png", *headers)
                line.sendall("\r\n".join((*head, "", "")).encode() + body)
                for _ in range(chunks):
                    line.sendall(b"8000\r\n" + bytes(0x8000) + b"\r\n")
                return line.recv(100)

        assert b" 413 " in send("Content-Length: 99999999999999")
        assert b" 413 " in send("Transfer-Encoding: chunked", chunks=32)  # 1 MiB, and the end is not said
        assert b" 400 " in send("Content-Length: -5")
        assert b" 400 " in send("Content-Length: 5", "Content-Length: 6", body=b"12345")
        assert requests.post(served.url + A2B, data=bytes(3_000_000), headers=PNG, timeout=20).status_code == 413
        pieces = (bytes(100_000) for _ in range(30))
        assert requests.post(served.url + A2B, data=pieces, headers=PNG, timeout=20).status_code == 413
        assert requests.post(served.url + A2B, data=PICTURE, headers=PNG, timeout=20).status_code == 200

    def test_slow_clients_hold_up_nobody_and_lose_their_places_when_they_leave(self, served: ModelServer) -> None:
        def begin() -> socket.socket:
            line = socket.create_connection(("127.0.0.1", served.port), timeout=20)
            head = f"POST {A2B} HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 5000\r\n\r\n"
            line.sendall(head.encode() + b"\x89PNG")
            return line

        lines = [begin(), begin()]
        wait_until(lambda: waiting(served) == 2)
        assert requests.post(served.url + A2B, data=PICTURE, headers=PNG, timeout=20).status_code == 200
        lines.append(begin())
        wait_until(lambda: waiting(served) == 3)
        assert requests.post(served.url + A2B, data=PICTURE, headers=PNG, timeout=20).status_code == 503
        for line in lines:
            line.close()
        wait_until(lambda: waiting(served) == 0)
        assert requests.post(served.url + A2B, data=PICTURE, headers=PNG, timeout=20).status_code == 200

    @pytest.mark.parametrize(("kind", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_it_ends_when_asked_whatever_is_going_on(
        self, served: ModelServer, kind: signal.Signals, code: int
    ) -> None:
        with socket.create_connection(("127.0.0.1", served.port), timeout=20) as line:
            head = f"POST {A2B} HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 5000\r\n\r\n"
            line.sendall(head.encode())
            wait_until(lambda: waiting(served) == 1)
            process = served.process
            assert process is not None
            process.send_signal(kind)
            assert b" 503 " in line.recv(1000)
        output, _ = process.communicate(timeout=30)
        assert process.returncode == code
        assert "Traceback" not in output

    def test_nothing_is_written(self, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        here, temporary = tmp_path / "here", tmp_path / "temporary"
        here.mkdir()
        temporary.mkdir()
        monkeypatch.chdir(here)
        monkeypatch.setenv("TMPDIR", str(temporary))
        monkeypatch.setattr(tempfile, "tempdir", None)
        before = {path: path.stat().st_mtime_ns for path in run.parent.rglob("*")}
        with ModelServer([str(run), "--device", "cpu"]) as served:
            large = encode(make_image(2, (1200, 900)), "BMP")  # of megabytes, which a form's parser would spool
            for content, status in ((PICTURE, 200), (large, 200), (b"nonsense", 400), (bomb(), 422)):
                assert requests.post(served.url + A2B, data=content, headers=PNG, timeout=60).status_code == status
            assert list(here.iterdir()) == []
            assert list(temporary.iterdir()) == []
            assert {path: path.stat().st_mtime_ns for path in run.parent.rglob("*")} == before
            process = served.process
            assert process is not None
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=30)
        assert output.splitlines() == ["horses: A2B, B2A", f"http://127.0.0.1:{served.port}/", "error: interrupted"]


def waiting(served: ModelServer) -> int:
    return requests.get(f"{served.url}/api/health", timeout=20).json()["waiting"]


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_upload_that_does_not_come_to_its_end_is_given_up(
    run: Path, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_LONGEST_UPLOAD", 0.2)
    app = make_app(open_models([run], device="cpu"), queue, LIMITS)
    sent: list[Any] = []
    parts = [{"type": "http.request", "body": b"\x89PNG", "more_body": True}]

    async def receive() -> Any:
        if parts:
            return parts.pop()
        await asyncio.sleep(60)
        raise AssertionError("nobody waits so long")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": A2B,
        "query_string": b"",
        "headers": [(b"content-type", b"image/png")],
    }
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 408
    assert queue.taken == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "needs runs' folders or generators' files"),
        (["{run}", "{run}"], "there is a model 'horses' already"),
        (["{run}/none"], "none"),
        (["{run}", "--host", "0.0.0.0"], "say with --name"),
    ],
    ids=["none", "twice", "missing", "nameless"],
)
def test_what_cannot_be_served_is_said_in_one_sentence(
    arguments: list[str], said: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *(word.format(run=run) for word in arguments)]) == 2
    complaint = capsys.readouterr().err
    assert said in complaint
    assert complaint.count("\n") == 1


def test_a_port_in_use_is_said_before_anything_is_loaded(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert main(["serve", str(run), "--port", str(other.getsockname()[1])]) == 2
    said = capsys.readouterr()
    assert "cannot be listened on" in said.err
    assert said.out == ""


def test_elsewhere_a_token_is_made_up(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taken: dict[str, Any] = {}
    monkeypatch.setattr(server, "run_server", lambda models, listening, **options: taken.update(options))
    assert main(["serve", str(run), "--host", "0.0.0.0", "--name", "Models.example", "--port", "18766"]) == 0
    assert len(taken["token"]) >= 20
    assert f"http://Models.example:18766/?token={taken['token']}" in capsys.readouterr().out
    assert "models.example" in taken["hosts"]
