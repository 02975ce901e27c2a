"""The web application of a study: one page and the endpoints that it calls."""

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
_MAX_BODY_BYTES = 2048
_YEAR_SECONDS = 365 * 24 * 3600


class _TrialRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    trial: Annotated[int, Field(ge=0, le=10_000)]


class _ImageRequest(_TrialRequest):
    side: Side


class _AnswerRequest(_ImageRequest):
    milliseconds: Annotated[int, Field(ge=0, le=3_600_000)]


def make_app(store: Store, materials: Materials) -> Starlette:
    """Create the application, without its guard.

    Args:
        store: The database for the answers.
        materials: The images.
    """

    def send_file(name: str) -> Callable[[Request], Response]:
        return lambda request: FileResponse(_PAGE / name)

    def begin(request: Request) -> Response:
        """Start a session, or continue the visitor's session: nobody can take part twice."""
        token = request.cookies.get(_PARTICIPANT, "")
        if not store.has_participant(token):
            token = store.begin()
        response = _trial_response(store.next_trial(token))
        response.set_cookie(_PARTICIPANT, token, max_age=_YEAR_SECONDS, httponly=True, samesite="strict", path="/")
        return response

    def next_trial(request: Request) -> Response:
        """Return the participant's next trial, or the protocol for a visitor without a session."""
        token = request.cookies.get(_PARTICIPANT)
        if token is None or not store.has_participant(token):
            return JSONResponse({**_protocol(), "new": True})
        return _trial_response(store.next_trial(token))

    def show_image(request: Request) -> Response:
        parameters = _ImageRequest.model_validate(request.path_params)
        token = request.cookies.get(_PARTICIPANT, "")
        algorithm, index = store.find_image(token, parameters.trial, parameters.side)
        files = materials.fakes[algorithm] if algorithm else materials.real
        return Response(materials.render(files[index]), media_type="image/png")

    async def mark_shown(request: Request) -> Response:
        body = _TrialRequest.model_validate_json(await request.body())
        await run_in_threadpool(store.mark_shown, request.cookies.get(_PARTICIPANT, ""), body.trial)
        return JSONResponse({})

    async def save_answer(request: Request) -> Response:
        body = _AnswerRequest.model_validate_json(await request.body())
        token = request.cookies.get(_PARTICIPANT, "")
        answer = await run_in_threadpool(store.answer, token, body.trial, body.side, body.milliseconds)
        return JSONResponse({"correct": answer.correct} if answer.practice else {})

    def _protocol() -> dict[str, float]:
        protocol = store.protocol
        return {"practice": protocol.practice, "counted": protocol.counted, "exposure": protocol.exposure}

    def _trial_response(trial: Trial | None) -> Response:
        if trial is None:
            return JSONResponse({**_protocol(), "over": True})
        public = {"number": trial.number, "done": trial.done, "practice": trial.practice}
        return JSONResponse({**_protocol(), "trial": public})

    return Starlette(
        routes=[
            Route("/", send_file("study.html")),
            Route("/study.css", send_file("study.css")),
            Route("/study.js", send_file("study.js")),
            Route("/begin", begin, methods=["POST"]),
            Route("/next", next_trial, methods=["POST"]),
            Route("/image/{trial:int}/{side}", show_image),
            Route("/shown", mark_shown, methods=["POST"]),
            Route("/answer", save_answer, methods=["POST"]),
        ],
        exception_handlers={RefusedError: _respond_refused, ValidationError: _respond_invalid},
    )


def run_server(
    store: Store, materials: Materials, *, host: str, port: int, names: Sequence[str] = (), token: str | None = None
) -> None:
    """Serve a study until interrupted.

    Args:
        store: The database for the answers.
        materials: The images.
        host: Address to bind to.
        port: Port to bind to.
        names: Further host names of the server.
        token: The token that visitors need; see `Guard`.

    Raises:
        DataError: If the address cannot be bound.
    """
    listening = listen(host, port)
    run_app(make_guard(make_app(store, materials), names_of(host, names), token), listening)


def make_guard(app: ASGIApp, hosts: Sequence[str], token: str | None) -> Guard:
    """Protect the application with a `Guard`."""
    return Guard(app, hosts=hosts, token=token, cookie="study_access", largest_body=_MAX_BODY_BYTES)


def _respond_refused(request: Request, error: Exception) -> Response:
    return JSONResponse({"reason": str(error)}, 409)


def _respond_invalid(request: Request, error: Exception) -> Response:
    return JSONResponse({"reason": "invalid request"}, 422)
