"""The study as a web application: one page, and the few requests that it makes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from gantoolkit.evaluation.study.materials import Materials
from gantoolkit.evaluation.study.store import RefusedError, Side, Store, Trial
from gantoolkit.web.guard import Guard
from gantoolkit.web.listening import listen, names_of, run_app

__all__ = ["make_app", "make_guard", "run_server"]

_PARTICIPANT = "study_participant"
_PAGE = Path(__file__).parent / "page"
_LARGEST_BODY = 2048
_YEAR = 365 * 24 * 3600


class _Begun(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    trial: Annotated[int, Field(ge=0, le=10_000)]


class _Asked(_Begun):
    side: Side


class _Given(_Asked):
    milliseconds: Annotated[int, Field(ge=0, le=3_600_000)]


def make_app(store: Store, materials: Materials) -> Starlette:
    """The application, without its guard.

    Args:
        store: Where answers go.
        materials: The images.
    """

    def send_file(name: str) -> Callable[[Request], Response]:
        return lambda request: FileResponse(_PAGE / name)

    def begin(request: Request) -> Response:
        """Let a visitor take part, once: who has a session goes on with it."""
        token = request.cookies.get(_PARTICIPANT, "")
        if not store.knows(token):
            token = store.begin()
        answer = _describe(store.next_trial(token))
        answer.set_cookie(_PARTICIPANT, token, max_age=_YEAR, httponly=True, samesite="strict", path="/")
        return answer

    def go_on(request: Request) -> Response:
        """What comes next for a participant; for a visitor without a session, what is to come."""
        token = request.cookies.get(_PARTICIPANT)
        if token is None or not store.knows(token):
            return JSONResponse({**_about(), "new": True})
        return _describe(store.next_trial(token))

    def show_image(request: Request) -> Response:
        given = _Asked.model_validate(request.path_params)
        token = request.cookies.get(_PARTICIPANT, "")
        algorithm, place = store.find_image(token, given.trial, given.side)
        files = materials.fakes[algorithm] if algorithm else materials.real
        return Response(materials.render(files[place]), media_type="image/png")

    async def mark_shown(request: Request) -> Response:
        given = _Begun.model_validate_json(await request.body())
        await run_in_threadpool(store.mark_shown, request.cookies.get(_PARTICIPANT, ""), given.trial)
        return JSONResponse({})

    async def take_answer(request: Request) -> Response:
        given = _Given.model_validate_json(await request.body())
        token = request.cookies.get(_PARTICIPANT, "")
        answer = await run_in_threadpool(store.answer, token, given.trial, given.side, given.milliseconds)
        return JSONResponse({"correct": answer.correct} if answer.practice else {})

    def _about() -> dict[str, float]:
        protocol = store.protocol
        return {"practice": protocol.practice, "counted": protocol.counted, "exposure": protocol.exposure}

    def _describe(trial: Trial | None) -> Response:
        if trial is None:
            return JSONResponse({**_about(), "over": True})
        shown = {"number": trial.number, "done": trial.done, "practice": trial.practice}
        return JSONResponse({**_about(), "trial": shown})

    return Starlette(
        routes=[
            Route("/", send_file("study.html")),
            Route("/study.css", send_file("study.css")),
            Route("/study.js", send_file("study.js")),
            Route("/begin", begin, methods=["POST"]),
            Route("/next", go_on, methods=["POST"]),
            Route("/image/{trial:int}/{side}", show_image),
            Route("/shown", mark_shown, methods=["POST"]),
            Route("/answer", take_answer, methods=["POST"]),
        ],
        exception_handlers={RefusedError: _say_refusal, ValidationError: _say_nonsense},
    )


def run_server(
    store: Store, materials: Materials, *, host: str, port: int, names: Sequence[str] = (), token: str | None = None
) -> None:
    """Serve until it is interrupted.

    Args:
        host: Address to bind to.
        port: Port.
        names: Further host names under which it is reached.
        token: What visitors have to bring; see `Guard`.

    Raises:
        DataError: When nothing can be bound there.
    """
    listening = listen(host, port)
    run_app(make_guard(make_app(store, materials), names_of(host, names), token), listening)


def make_guard(app: ASGIApp, hosts: Sequence[str], token: str | None) -> Guard:
    """The guard of a study; see `Guard`."""
    return Guard(app, hosts=hosts, token=token, cookie="study_access", largest_body=_LARGEST_BODY)


def _say_refusal(request: Request, error: Exception) -> Response:
    return JSONResponse({"reason": str(error)}, 409)


def _say_nonsense(request: Request, error: Exception) -> Response:
    return JSONResponse({"reason": "this request is not one that the page makes"}, 422)
