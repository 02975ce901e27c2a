"""The page on which models are tried, as a web application: a few files, and the requests that they and programs make."""

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

from gantoolkit.data.images import TooManyPixelsError, decode_image
from gantoolkit.errors import DataError
from gantoolkit.inference import Translator
from gantoolkit.serving.description import TYPES, Direction, Health, Limits, ModelList, ServedModel, describe_api
from gantoolkit.serving.models import Model
from gantoolkit.serving.queue import ClosedError, FullError, Queue
from gantoolkit.web.guard import Guard
from gantoolkit.web.listening import run_app

__all__ = ["make_app", "make_guard", "run_server"]

_PAGE = Path(__file__).parent / "page"
_LONGEST_UPLOAD = 60.0
"""Seconds in which a body has to arrive; it holds a place meanwhile."""
_NOBODY_LISTENS = 499
_WRONG_TYPE = "this is not sent as an image; BMP, GIF, JPEG, PNG, PPM, TIFF and WebP are read, with their Content-Type"


def make_app(models: Mapping[str, Model], queue: Queue, limits: Limits) -> Starlette:
    """The application, without its guard.

    Args:
        models: By name.
        queue: Where images wait for their turn.
        limits: The largest image that is taken.
    """
    listed = ModelList(models=[_list(model) for model in models.values()], limits=limits)

    def send_file(name: str) -> Callable[[Request], Response]:
        return lambda request: FileResponse(_PAGE / name)

    async def list_models(request: Request) -> Response:
        return JSONResponse(listed.model_dump())

    async def read_health(request: Request) -> Response:
        return JSONResponse(Health(waiting=queue.taken, places=queue.places, served=queue.served).model_dump())

    async def describe(request: Request) -> Response:
        return JSONResponse(describe_api(limits))

    async def translate(request: Request) -> Response:
        translator = _find(models, request.path_params["name"], request.path_params["direction"])
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in TYPES:
            raise HTTPException(415, _WRONG_TYPE)
        length = request.headers.get("content-length", "0")
        if length.isdecimal() and int(length) > limits.bytes:
            raise HTTPException(413, f"too large: no more than {limits.bytes:,} bytes are read")
        try:
            with queue.place():
                content = await queue.unless_closed(_read(request))
                work = queue.compute(partial(_translate, translator, content, limits.pixels))
                return Response(await _unless_gone(request, work), media_type="image/png")
        except FullError as error:
            wait = {"retry-after": str(error.seconds)}
            raise HTTPException(503, f"{queue.places} images are before this one; try again", wait) from error
        except ClosedError as error:
            raise HTTPException(503, "the server is being stopped", {"retry-after": "60"}) from error
        except ClientDisconnect:
            return Response(status_code=_NOBODY_LISTENS)

    app = Starlette(
        routes=[
            Route("/", send_file("index.html")),
            *(Route(f"/{name}", send_file(name)) for name in ("serve.css", "serve.js", "icon.svg")),
            Route("/api/models", list_models),
            Route("/api/models/{name}/{direction}", translate, methods=["POST"]),
            Route("/api/health", read_health),
            Route("/api/openapi.json", describe),
        ],
        exception_handlers={HTTPException: _say, Exception: _say_mistake},
    )
    app.router.redirect_slashes = False
    return app


def make_guard(app: ASGIApp, hosts: Sequence[str], token: str | None, limits: Limits) -> Guard:
    """The guard of such an application; see `Guard`."""
    return Guard(
        app,
        hosts=hosts,
        token=token,
        cookie="serve_access",
        largest_body=limits.bytes,
        programs=True,
        refuse=_refuse,
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
    """Serve until it is interrupted; an image that is being translated then is translated to its end.

    Args:
        models: By name.
        listening: As from `gantoolkit.web.listening.listen`.
        hosts: Names under which it is reached.
        token: What visitors have to bring; see `Guard`.
        limits: The largest image that is taken.
        places: Images that may wait.
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
        raise HTTPException(404, f"there is no such model; there is {', '.join(models)}")
    translators = models[name].translators
    if direction not in translators:
        raise HTTPException(404, f"{name} does not translate in this direction but {', '.join(translators)}")
    return translators[direction]


async def _read(request: Request) -> bytes:
    """The body, of which the guard lets no more through than is allowed."""
    try:
        async with asyncio.timeout(_LONGEST_UPLOAD):
            content = await request.body()
    except TimeoutError:
        raise HTTPException(408, f"the image did not arrive within {_LONGEST_UPLOAD:.0f} seconds") from None
    if not content:
        raise HTTPException(400, "there is no image in the request's body")
    return content


async def _unless_gone(request: Request, work: Coroutine[Any, Any, bytes]) -> bytes:
    """What work comes to, which is given up when nobody waits for it any more.

    Raises:
        ClientDisconnect: When that happened.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_wait_for_end(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _wait_for_end(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _translate(translator: Translator, content: bytes, max_pixels: int) -> bytes:
    """The PNG of an image's translation; nothing of either is written anywhere."""
    try:
        image = decode_image(content, translator.generator.source.channels, name="the upload", max_pixels=max_pixels)
    except TooManyPixelsError as error:
        raise HTTPException(422, str(error)) from error
    except DataError as error:
        raise HTTPException(400, str(error)) from error
    try:
        made = translator.translate([image])[0]
    except DataError as error:
        raise HTTPException(422, str(error)) from error
    stream = io.BytesIO()
    made.save(stream, "PNG")
    return stream.getvalue()


def _refuse(status: int, sentence: str) -> Response:
    return JSONResponse({"error": sentence}, status)


def _say(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def _say_mistake(request: Request, error: Exception) -> Response:
    return _refuse(500, f"a mistake in the server ({type(error).__name__})")
