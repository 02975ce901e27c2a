"""The web application of `gantoolkit serve`: the page's files and the HTTP API."""

import asyncio
import io
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from gantoolkit.data.images import MAX_PIXELS, ImageContent, TooManyPixelsError
from gantoolkit.data.pixels import read_decoded_image
from gantoolkit.errors import DataError
from gantoolkit.inference import Translator
from gantoolkit.serving.description import (
    NOTES_HEADER,
    TYPES,
    Direction,
    Health,
    Limits,
    ModelList,
    ServedModel,
    describe_api,
)
from gantoolkit.serving.models import Model
from gantoolkit.serving.queue import ClosedError, FullError, Queue
from gantoolkit.web.guard import Guard
from gantoolkit.web.listening import run_app

__all__ = ["make_app", "make_guard", "run_server"]

_PAGE = Path(__file__).parent / "page"
_LONGEST_UPLOAD = 60.0
"""Seconds within which a body must arrive; meanwhile it occupies a place in the queue."""
_CLIENT_DISCONNECTED = 499
_WRONG_TYPE = "the Content-Type is not that of a supported image; use BMP, GIF, JPEG, PNG, PPM, TIFF or WebP"


def make_app(models: Mapping[str, Model], queue: Queue, limits: Limits) -> Starlette:
    """Create the application, without its guard.

    Args:
        models: The models by name.
        queue: The queue of images.
        limits: The largest image that is accepted.
    """
    model_list = ModelList(models=[_list(model) for model in models.values()], limits=limits)

    def send_file(name: str) -> Callable[[Request], Response]:
        return lambda request: FileResponse(_PAGE / name)

    async def list_models(request: Request) -> Response:
        return JSONResponse(model_list.model_dump())

    async def read_health(request: Request) -> Response:
        return JSONResponse(Health(waiting=queue.waiting, places=queue.places, served=queue.served).model_dump())

    async def describe(request: Request) -> Response:
        return JSONResponse(describe_api(limits))

    async def translate(request: Request) -> Response:
        translator = _find(models, request.path_params["name"], request.path_params["direction"])
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type not in TYPES:
            raise HTTPException(415, _WRONG_TYPE)
        length = request.headers.get("content-length", "0")
        if length.isdecimal() and int(length) > limits.bytes:
            raise HTTPException(413, f"too large: at most {limits.bytes:,} bytes are accepted")
        try:
            with queue.reserve():
                content = await queue.unless_closed(_read(request))
                computation = queue.compute(partial(_translate, translator, content, limits.pixels))
                return await _unless_disconnected(request, computation)
        except FullError as error:
            headers = {"retry-after": str(error.seconds)}
            raise HTTPException(503, f"the queue is full with {queue.places} images; try again", headers) from error
        except ClosedError as error:
            raise HTTPException(503, "the server is shutting down", {"retry-after": "60"}) from error
        except ClientDisconnect:
            return Response(status_code=_CLIENT_DISCONNECTED)

    app = Starlette(
        routes=[
            Route("/", send_file("index.html")),
            *(Route(f"/{name}", send_file(name)) for name in ("serve.css", "serve.js", "icon.svg")),
            Route("/api/models", list_models),
            Route("/api/models/{name}/{direction}", translate, methods=["POST"]),
            Route("/api/health", read_health),
            Route("/api/openapi.json", describe),
        ],
        exception_handlers={HTTPException: _handle_http_error, Exception: _handle_internal_error},
    )
    app.router.redirect_slashes = False
    return app


def make_guard(app: ASGIApp, hosts: Sequence[str], token: str | None, limits: Limits) -> Guard:
    """Wrap an application of `make_app` in its guard; see `Guard`."""
    return Guard(
        app,
        hosts=hosts,
        token=token,
        cookie="serve_access",
        largest_body=limits.bytes,
        programs=True,
        refuse=_error_response,
    )


def run_server(
    models: Mapping[str, Model],
    listening: socket.socket,
    *,
    hosts: Sequence[str],
    token: str | None,
    limits: Limits,
    places: int,
) -> None:
    """Serve until interrupted; a translation in progress is completed.

    Args:
        models: The models by name.
        listening: The socket that `gantoolkit.web.listening.listen` returns.
        hosts: The host names of the server.
        token: The token that visitors need; see `Guard`.
        limits: The largest image that is accepted.
        places: Number of places in the queue.
    """
    queue = Queue(places)
    try:
        run_app(make_guard(make_app(models, queue, limits), hosts, token, limits), listening, stop=queue.close)
    finally:
        queue.wait()


def _list(model: Model) -> ServedModel:
    generators = [translator.generator for translator in model.translators.values()]
    directions = [
        Direction(
            direction=generator.direction,
            in_channels=generator.source.channels,
            out_channels=generator.target.channels,
            step=generator.step,
        )
        for generator in generators
    ]
    return ServedModel(name=model.name, recipe=generators[0].recipe.name, directions=directions)


def _find(models: Mapping[str, Model], name: str, direction: str) -> Translator:
    if name not in models:
        raise HTTPException(404, f"unknown model; choose from {', '.join(models)}")
    translators = models[name].translators
    if direction not in translators:
        raise HTTPException(404, f"{name} does not translate in this direction; choose from {', '.join(translators)}")
    return translators[direction]


async def _read(request: Request) -> bytes:
    """Read the body; the guard bounds its size."""
    try:
        async with asyncio.timeout(_LONGEST_UPLOAD):
            content = await request.body()
    except TimeoutError:
        raise HTTPException(408, f"the image did not arrive within {_LONGEST_UPLOAD:.0f} seconds") from None
    if not content:
        raise HTTPException(400, "the request's body is empty; it must contain an image")
    return content


async def _unless_disconnected(request: Request, computation: Coroutine[Any, Any, Response]) -> Response:
    """Await a computation, and cancel it when the client disconnects.

    Raises:
        ClientDisconnect: When the client disconnects first.
    """
    result = asyncio.ensure_future(computation)
    disconnection = asyncio.ensure_future(_wait_for_disconnect(request))
    try:
        await asyncio.wait({result, disconnection}, return_when=asyncio.FIRST_COMPLETED)
        if not result.done():
            raise ClientDisconnect
        return result.result()
    finally:
        result.cancel()
        disconnection.cancel()


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _translate(translator: Translator, content: bytes, max_pixels: int) -> Response:
    """Translate an encoded image to PNG, entirely in memory. A header names what is not used, and how colors are read."""
    upload = ImageContent(content, "the upload")
    try:
        image = read_decoded_image(upload, translator.generator.source, max_pixels=min(max_pixels, MAX_PIXELS))
    except TooManyPixelsError as error:
        raise HTTPException(422, str(error)) from error
    except DataError as error:
        raise HTTPException(400, str(error)) from error
    try:
        translation = translator.translate([image.pixels])[0]
    except DataError as error:
        raise HTTPException(422, str(error)) from error
    stream = io.BytesIO()
    translation.save(stream, "PNG")
    notes = "; ".join(note.text for note in image.notes)
    return Response(stream.getvalue(), media_type="image/png", headers={NOTES_HEADER: notes} if notes else {})


def _error_response(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status)


def _handle_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def _handle_internal_error(request: Request, error: Exception) -> Response:
    return _error_response(500, f"an internal error of the server ({type(error).__name__})")
