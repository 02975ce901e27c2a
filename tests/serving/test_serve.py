"""`gantoolkit serve` without a browser: its responses and rejections, and that it stores nothing."""

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
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from _helpers.patience import PATIENCE, wait_for
from _helpers.serving import ModelServer
from _helpers.small import make_dataset, make_image, make_tiny
from PIL import Image
from starlette.routing import Route
from starlette.testclient import TestClient

import gantoolkit
from gantoolkit import load
from gantoolkit.cli import main
from gantoolkit.data.images import ImageContent, TooManyPixelsError
from gantoolkit.data.pixels import read_image
from gantoolkit.errors import CheckpointError, DataError
from gantoolkit.serving import Queue, open_models, server
from gantoolkit.serving.description import Health, Limits, ModelList, Problem, describe_api
from gantoolkit.serving.queue import ClosedError, FullError
from gantoolkit.serving.server import make_app, make_guard

LIMITS = Limits(bytes=60_000, pixels=10_000)
PNG = {"content-type": "image/png"}
A2B = "/api/models/horses/A2B"


def encode(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
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


class CheckedClient(TestClient):
    """A client that checks that every response below /api has a status and content of the OpenAPI description."""

    def request(self, method: str, url: Any, **options: Any) -> Any:
        response = super().request(method, url, **options)
        paths, address = describe_api(LIMITS)["paths"], str(url).partition("?")[0]
        template = "/api/models/{name}/{direction}" if address.startswith("/api/models/") else address
        if method.lower() in paths.get(template, {}):
            responses = paths[template][method.lower()]["responses"]
            assert str(response.status_code) in responses, (method, url, response.status_code)
            content = responses[str(response.status_code)]["content"]
            assert response.headers["content-type"] in content
        if response.status_code >= 400:
            message = Problem.model_validate(response.json(), extra="forbid").error
            assert message
            assert "\n" not in message
        return response


@pytest.fixture
def client(run: Path, queue: Queue) -> Iterator[TestClient]:
    models = open_models([run, f"alone={run / 'generators' / 'B2A.safetensors'}"], device="cpu")
    app = make_guard(make_app(models, queue, LIMITS), ["localhost"], None, LIMITS)
    with CheckedClient(app, base_url="http://localhost") as client:
        yield client


class TestResponses:
    def test_translation_and_reconstruction_are_those_of_the_translator(self, client: TestClient, run: Path) -> None:
        forward, backward = (load(run, direction, device="cpu") for direction in ("A2B", "B2A"))
        translation = forward(Image.open(io.BytesIO(PICTURE)))
        response = client.post(A2B, content=PICTURE, headers=PNG)
        assert response.status_code == 200
        assert response.content == encode(translation)
        assert Image.open(io.BytesIO(response.content)).size == (37, 30)
        reconstruction = client.post("/api/models/horses/B2A", content=response.content, headers=PNG)
        assert reconstruction.content == encode(backward(translation))
        assert Image.open(io.BytesIO(reconstruction.content)).mode == "L"  # A has one channel
        assert client.get("/api/health").json() == {"waiting": 0, "places": 4, "served": 2}

    def test_models_and_limits_are_listed(self, client: TestClient) -> None:
        content = ModelList.model_validate(client.get("/api/models").json(), extra="forbid")
        names = [(model.name, [item.direction for item in model.directions]) for model in content.models]
        assert names == [("horses", ["A2B", "B2A"]), ("alone", ["B2A"])]
        assert [(item.in_channels, item.out_channels) for item in content.models[0].directions] == [(1, 3), (3, 1)]
        assert content.limits == LIMITS
        Health.model_validate(client.get("/api/health").json(), extra="forbid")

    def test_description_and_routes_agree(self, client: TestClient) -> None:
        description = client.get("/api/openapi.json").json()
        assert description == json.loads(json.dumps(describe_api(LIMITS)))
        routes = make_app({}, Queue(1), LIMITS).routes
        operations = {
            (route.path, method.lower())
            for route in routes
            if isinstance(route, Route) and route.path.startswith("/api/")
            for method in (route.methods or set()) - {"HEAD"}
        }
        assert operations == {(path, method) for path, methods in description["paths"].items() for method in methods}
        references = set(_find_references(description))
        assert references == {f"#/components/schemas/{name}" for name in description["components"]["schemas"]}
        parameters = description["paths"]["/api/models/{name}/{direction}"]["post"]["parameters"]
        assert [parameter["name"] for parameter in parameters] == ["name", "direction"]

    @pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP"])
    def test_uploads_are_decoded_as_files_are(self, format: str, tmp_path: Path) -> None:
        image, path = make_image(5), tmp_path / "image"
        exif = Image.Exif()
        exif[274] = 6  # orientation: rotated
        path.write_bytes(encode(image, format, **({"exif": exif} if format in ("JPEG", "TIFF", "WEBP", "PNG") else {})))
        for channels in (1, 3):
            decoded = read_image(ImageContent(path.read_bytes()), channels)
            assert decoded.mode == read_image(path, channels).mode
            assert np.array_equal(np.asarray(decoded), np.asarray(read_image(path, channels)))
        with pytest.raises(TooManyPixelsError, match=r"(40×36|36×40) pixels are more than the 1,439 allowed"):
            read_image(ImageContent(path.read_bytes()), max_pixels=1439)

    def test_a_header_names_what_is_not_used(self, client: TestClient) -> None:
        frames = [make_image(index) for index in range(2)]
        animation = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
        response = client.post(A2B, content=animation, headers={"Content-Type": "image/gif"})
        assert response.headers["X-Notes"] == "has several frames, of which only the first is used"
        assert "X-Notes" not in client.post(A2B, content=PICTURE, headers=PNG).headers

    def test_page_is_self_contained(self, client: TestClient) -> None:
        page = client.get("/")
        assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        for address in ("/serve.css", "/serve.js", "/icon.svg"):
            assert f'"{address}"' in page.text
            assert client.get(address).status_code == 200
        assert "style=" not in page.text
        assert page.text.count("<script") == 1


def _find_references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        yield from (value for key, value in part.items() if key == "$ref")
        part = list(part.values())
    if isinstance(part, list):
        for item in part:
            yield from _find_references(item)


def bomb() -> bytes:
    """A PNG of a few bytes whose header claims 100,000 × 100,000 pixels."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    parts = [struct.pack(">I", len(c)) + kind + c + struct.pack(">I", zlib.crc32(kind + c)) for kind, c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


class TestRejections:
    @pytest.mark.parametrize(
        ("body", "content_type", "status", "message"),
        [
            (b"", "image/png", 400, "the request's body is empty"),
            (encode(make_image(1), "JPEG")[:700], "image/jpeg", 400, "damaged"),
            (b"<!doctype html><script>alert(1)</script>", "image/png", 400, "is not a readable image"),
            (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "image/png", 400, "is not a readable image"),
            (
                b'<svg xmlns="http://www.w3.org/2000/svg"/>',
                "image/svg+xml",
                415,
                "the Content-Type is not that of a supported image",
            ),
            (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "image/png", 400, "is not a readable image"),
            (PICTURE, "text/html", 415, "the Content-Type is not that of a supported image"),
            (PICTURE, "multipart/form-data; boundary=x", 415, "the Content-Type is not that of a supported image"),
            (PICTURE, "", 415, "the Content-Type is not that of a supported image"),
            (encode(Image.new("F", (4, 4)), "TIFF"), "image/tiff", 400, "does not define which value is white"),
            (bomb(), "image/png", 422, "allowed"),
            (encode(Image.new("L", (101, 100))), "image/png", 422, "101×100 pixels are more than the 10,000 allowed"),
            (bytes(60_001), "image/png", 413, "at most 60,000 bytes"),
        ],
        ids=[
            "empty",
            "truncated",
            "html",
            "svg",
            "svg-type",
            "eps",
            "html-type",
            "form-type",
            "no-type",
            "float",
            "bomb",
            "pixels",
            "bytes",
        ],
    )
    def test_invalid_bodies(
        self, client: TestClient, body: bytes, content_type: str, status: int, message: str
    ) -> None:
        response = client.post(A2B, content=body, headers={"content-type": content_type})
        assert response.status_code == status
        assert message in response.json()["error"]
        assert client.post(A2B, content=PICTURE, headers={"content-type": "image/PNG; x=y"}).status_code == 200

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
    def test_unknown_models_and_directions(self, client: TestClient, address: str) -> None:
        assert client.post(address, content=PICTURE, headers=PNG).status_code == 404

    def test_urls_are_not_file_paths(self, client: TestClient) -> None:
        for address in ("/server.py", "/page/index.html", "/..%2fserver.py", "/%2e%2e/server.py", "/serve.js/", "/api"):
            assert client.get(address).status_code == 404, address

    def test_wrong_methods(self, client: TestClient) -> None:
        assert client.get(A2B).status_code == 405
        assert client.post("/api/models").status_code == 405
        for method in ("PUT", "DELETE", "OPTIONS", "PATCH"):
            assert client.request(method, A2B).status_code == 405

    def test_other_hosts_and_origins_are_rejected(self, client: TestClient) -> None:
        assert client.get("/api/models", headers={"host": "evil.example"}).status_code == 400
        assert client.post(A2B, content=PICTURE, headers={**PNG, "host": "evil.example"}).status_code == 400
        for origin, status in {"http://evil.example": 403, "null": 403, "http://localhost": 200}.items():
            response = client.post(A2B, content=PICTURE, headers={**PNG, "origin": origin})
            assert response.status_code == status

    def test_internal_error_is_one_sentence(self, run: Path, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gantoolkit.inference.Translator.read", lambda *_, **__: 1 / 0)
        app = make_guard(make_app(open_models([run], device="cpu"), queue, LIMITS), ["localhost"], None, LIMITS)
        with CheckedClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
            assert client.post(A2B, content=PICTURE, headers=PNG).status_code == 500
            assert queue.waiting == 0

    def test_size_that_cannot_be_translated(self, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object) -> None:
            raise DataError("an image of 37×30 pixels cannot be translated: not enough memory")

        monkeypatch.setattr("gantoolkit.inference.Translator.translate", fail)
        assert client.post(A2B, content=PICTURE, headers=PNG).status_code == 422

    def test_token_is_required(self, run: Path, queue: Queue) -> None:
        app = make_guard(make_app(open_models([run], device="cpu"), queue, LIMITS), ["localhost"], "secret", LIMITS)
        with CheckedClient(app, base_url="http://localhost") as client:
            for address in ("/", "/serve.js", "/api/models", "/api/health", "/api/openapi.json", "/?token=wrong"):
                assert client.get(address).status_code == 401
            for credentials in ("Bearer wrong", "Basic secret", "Bearer", "Bearer sécret", "secret"):
                headers = {**PNG, "authorization": credentials.encode("latin-1")}
                response = client.post(A2B, content=PICTURE, headers=headers)
                assert response.status_code == 401
                assert response.headers["www-authenticate"] == "Bearer"
            assert (
                client.post(A2B, content=PICTURE, headers={**PNG, "authorization": "Bearer secret"}).status_code == 200
            )
            assert client.get("/?token=secret", follow_redirects=False).headers["location"] == "/"
            assert client.get("/api/models").status_code == 200  # with the cookie


class TestQueue:
    def test_full_queue_states_when_to_retry(self, client: TestClient, queue: Queue) -> None:
        with queue.reserve(), queue.reserve(), queue.reserve():
            assert client.post(A2B, content=PICTURE, headers=PNG).status_code == 200
            with queue.reserve():
                response = client.post(A2B, content=PICTURE, headers=PNG)
                assert response.status_code == 503
                assert response.headers["retry-after"] == "1"
                assert client.get("/api/health").json()["waiting"] == 4
        assert client.post(A2B, content=PICTURE, headers=PNG).status_code == 200

    def test_jobs_run_in_order_and_canceled_jobs_are_skipped_and_freed(self) -> None:
        class Upload:
            pass

        done: list[int] = []

        async def use() -> None:
            queue, gate = Queue(5), threading.Event()
            first = asyncio.ensure_future(queue.compute(gate.wait))
            uploads = [Upload() for _ in range(3)]
            references = [weakref.ref(upload) for upload in uploads]

            async def compute(index: int, upload: Upload) -> None:
                await queue.compute(partial(lambda index, upload: done.append(index), index, upload))

            others = [asyncio.ensure_future(compute(index, upload)) for index, upload in enumerate(uploads)]
            uploads.clear()
            await asyncio.sleep(0.05)
            others[1].cancel()
            await asyncio.wait([others[1]])
            del others[1]
            gc.collect()
            freed = [reference() is None for reference in references]  # while the first job still runs
            gate.set()
            assert freed == [False, True, False]
            await asyncio.gather(first, *others)
            assert queue.served == 3
            queue.close()
            queue.wait()

        asyncio.run(use())
        assert done == [0, 2]

    def test_closing_raises_in_all_waiters_and_completes_the_running_job(self) -> None:
        completed: list[bool] = []

        async def use() -> None:
            queue, gate = Queue(5), threading.Event()
            jobs = [asyncio.ensure_future(queue.compute(lambda: completed.append(gate.wait()))) for _ in range(3)]
            upload = asyncio.ensure_future(queue.unless_closed(asyncio.sleep(60)))
            await asyncio.sleep(0.05)
            queue.close()
            results = await asyncio.wait_for(asyncio.gather(*jobs, upload, return_exceptions=True), 10)
            gate.set()
            assert [type(result) for result in results] == [ClosedError] * 4
            with pytest.raises(ClosedError), queue.reserve():
                pass
            queue.wait()

        asyncio.run(use())
        assert completed == [True]

    def test_waiting_time_follows_from_measured_durations(self) -> None:
        async def use() -> None:
            queue = Queue(2)
            await queue.compute(lambda: time.sleep(0.6))
            with queue.reserve(), queue.reserve():
                with pytest.raises(FullError) as full, queue.reserve():
                    pass
                assert full.value.seconds == 2
            queue.wait()

        asyncio.run(use())


class TestModels:
    def test_names(self, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        A2B_file, B2A_file = (run / "generators" / f"{direction}.safetensors" for direction in ("A2B", "B2A"))
        models = open_models([run, f"both={A2B_file}", f"both={B2A_file}", B2A_file], device="cpu")
        assert {name: list(model.translators) for name, model in models.items()} == {
            "horses": ["A2B", "B2A"],
            "both": ["A2B", "B2A"],
            "B2A": ["B2A"],
        }
        monkeypatch.chdir(run)
        assert list(open_models(["."], device="cpu")) == ["horses"]

    @pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\nb", "a" * 101])
    def test_invalid_names(self, run: Path, name: str) -> None:
        with pytest.raises(DataError, match="is not a valid model name"):
            open_models([f"{name}={run}"])

    def test_duplicate_and_missing_models(self, run: Path, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"there is already a model 'horses' that translates A2B; .* NAME="):
            open_models([run, run], device="cpu")
        with pytest.raises(CheckpointError):
            open_models([tmp_path / "none"], device="cpu")


class TestServer:
    """The server in a separate process."""

    @pytest.fixture
    def served(self, run: Path) -> Iterator[ModelServer]:
        with ModelServer([str(run), "--max-megabytes", "1", "--queue", "3", "--device", "cpu"]) as served:
            yield served

    def test_bodies_with_a_wrong_length(self, served: ModelServer) -> None:
        def send(*headers: str, body: bytes = b"", chunks: int = 0) -> bytes:
            with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE) as line:
                head = (f"POST {A2B} HTTP/1.1", "Host: localhost", "Content-Type: image/png", *headers)
                line.sendall("\r\n".join((*head, "", "")).encode() + body)
                for _ in range(chunks):
                    line.sendall(b"8000\r\n" + bytes(0x8000) + b"\r\n")
                return line.recv(100)

        assert b" 413 " in send("Content-Length: 99999999999999")
        assert b" 413 " in send("Transfer-Encoding: chunked", chunks=32)  # 1 MiB without an end
        assert b" 400 " in send("Content-Length: -5")
        assert b" 400 " in send("Content-Length: 5", "Content-Length: 6", body=b"12345")
        assert requests.post(served.url + A2B, data=bytes(3_000_000), headers=PNG, timeout=PATIENCE).status_code == 413
        pieces = (bytes(100_000) for _ in range(30))
        assert requests.post(served.url + A2B, data=pieces, headers=PNG, timeout=PATIENCE).status_code == 413
        assert requests.post(served.url + A2B, data=PICTURE, headers=PNG, timeout=PATIENCE).status_code == 200

    def test_slow_clients_block_nobody_and_free_their_places_on_disconnect(self, served: ModelServer) -> None:
        def begin() -> socket.socket:
            line = socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE)
            head = f"POST {A2B} HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 5000\r\n\r\n"
            line.sendall(head.encode() + b"\x89PNG")
            return line

        lines = [begin(), begin()]
        wait_for(lambda: waiting(served) == 2)
        assert requests.post(served.url + A2B, data=PICTURE, headers=PNG, timeout=PATIENCE).status_code == 200
        lines.append(begin())
        wait_for(lambda: waiting(served) == 3)
        assert requests.post(served.url + A2B, data=PICTURE, headers=PNG, timeout=PATIENCE).status_code == 503
        for line in lines:
            line.close()
        wait_for(lambda: waiting(served) == 0)
        assert requests.post(served.url + A2B, data=PICTURE, headers=PNG, timeout=PATIENCE).status_code == 200

    @pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_signals_end_the_server_during_an_upload(
        self, served: ModelServer, signum: signal.Signals, code: int
    ) -> None:
        with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE) as line:
            head = f"POST {A2B} HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 5000\r\n\r\n"
            line.sendall(head.encode())
            wait_for(lambda: waiting(served) == 1)
            process = served.process
            assert process is not None
            process.send_signal(signum)
            assert b" 503 " in line.recv(1000)
        output, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == code
        assert "Traceback" not in output

    def test_no_file_is_written(self, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        current, temporary = tmp_path / "current", tmp_path / "temporary"
        current.mkdir()
        temporary.mkdir()
        monkeypatch.chdir(current)
        monkeypatch.setenv("TMPDIR", str(temporary))
        monkeypatch.setattr(tempfile, "tempdir", None)
        before = {path: path.stat().st_mtime_ns for path in run.parent.rglob("*")}
        with ModelServer([str(run), "--device", "cpu"]) as served:
            large = encode(
                make_image(2, (1200, 900)), "BMP"
            )  # several megabytes, which a form parser would spool to disk
            for content, status in ((PICTURE, 200), (large, 200), (b"nonsense", 400), (bomb(), 422)):
                assert (
                    requests.post(served.url + A2B, data=content, headers=PNG, timeout=PATIENCE).status_code == status
                )
            assert list(current.iterdir()) == []
            assert list(temporary.iterdir()) == []
            assert {path: path.stat().st_mtime_ns for path in run.parent.rglob("*")} == before
            process = served.process
            assert process is not None
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=PATIENCE)
        assert output.splitlines() == ["horses: A2B, B2A", f"http://127.0.0.1:{served.port}/", "error: interrupted"]


def waiting(served: ModelServer) -> int:
    return requests.get(f"{served.url}/api/health", timeout=PATIENCE).json()["waiting"]


def test_incomplete_upload_times_out(run: Path, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_LONGEST_UPLOAD", 0.2)
    app = make_app(open_models([run], device="cpu"), queue, LIMITS)
    messages: list[Any] = []
    parts = [{"type": "http.request", "body": b"\x89PNG", "more_body": True}]

    async def receive() -> Any:
        if parts:
            return parts.pop()
        await asyncio.sleep(60)
        raise AssertionError("the upload did not time out")

    async def send(message: Any) -> None:
        messages.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": A2B,
        "query_string": b"",
        "headers": [(b"content-type", b"image/png")],
    }
    asyncio.run(app(scope, receive, send))
    assert messages[0]["status"] == 408
    assert queue.waiting == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "needs runs' folders or generators' files"),
        (["{run}", "{run}"], "there is already a model 'horses'"),
        (["{run}/none"], "none"),
        (["{run}", "--host", "0.0.0.0"], "needs --name"),
    ],
    ids=["none", "twice", "missing", "nameless"],
)
def test_errors_of_the_command_are_one_sentence(
    arguments: list[str], message: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *(word.format(run=run) for word in arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_port_in_use_is_reported_before_models_are_loaded(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert main(["serve", str(run), "--port", str(other.getsockname()[1])]) == 2
    printed = capsys.readouterr()
    assert "cannot listen on" in printed.err
    assert printed.out == ""


def test_other_hosts_get_a_random_token(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments: dict[str, Any] = {}
    monkeypatch.setattr(server, "run_server", lambda models, listening, **options: arguments.update(options))
    assert main(["serve", str(run), "--host", "0.0.0.0", "--name", "Models.example", "--port", "18766"]) == 0
    assert len(arguments["token"]) >= 20
    assert f"http://Models.example:18766/?token={arguments['token']}" in capsys.readouterr().out
    assert "models.example" in arguments["hosts"]
