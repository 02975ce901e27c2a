"""What the server answers, and the description of it that programs read (OpenAPI 3.1)."""

from typing import Any

from pydantic import BaseModel, Field

from gantoolkit.runtime.version import __version__

__all__ = ["TYPES", "Direction", "Health", "Limits", "ModelList", "Problem", "ServedModel", "describe_api"]

TYPES = (
    "image/bmp",
    "image/gif",
    "image/jpeg",
    "image/jpg",
    "image/png",
    "image/tiff",
    "image/webp",
    "image/x-ms-bmp",
    "image/x-portable-anymap",
    "image/x-portable-bitmap",
    "image/x-portable-graymap",
    "image/x-portable-pixmap",
)
"""Content types of images that are read; in which of them an image is, its content says."""


class Direction(BaseModel):
    """A direction in which a model translates."""

    direction: str = Field(description="A2B or B2A")
    in_channels: int
    out_channels: int
    step: int = Field(description="steps that it was trained")


class ServedModel(BaseModel):
    """A model by its name."""

    name: str
    recipe: str
    directions: list[Direction]


class Limits(BaseModel):
    """The largest image that is taken."""

    bytes: int = 16_000_000
    pixels: int = 4096 * 4096


class ModelList(BaseModel):
    """All that is served."""

    models: list[ServedModel]
    limits: Limits


class Health(BaseModel):
    """How much there is to do."""

    waiting: int = Field(description="images that are being sent, wait, or are translated")
    places: int = Field(description="the most that may")
    served: int = Field(description="images translated since the start")


class Problem(BaseModel):
    """Why there is no other answer."""

    error: str = Field(description="one sentence")


_EVERYWHERE = {
    400: "The Host header names no host of this server.",
    401: "The token is missing or wrong, where one is asked for.",
    429: "Too many requests from one address; `Retry-After` says when to ask again.",
    500: "A mistake in the server.",
}
_OF_IMAGES = {
    400: "There is no image in the body, it is damaged, or the Host header names no host of this server.",
    403: "The request comes from another site's page.",
    404: "There is no such model, or it does not translate in this direction.",
    408: "The body did not arrive in time.",
    413: "The body has more bytes than `limits` in /api/models says.",
    415: "The Content-Type is not that of an image that is read.",
    422: "The image has more pixels than `limits` says, or its size cannot be translated.",
    503: "Too many images wait; `Retry-After` says when to ask again.",
}


def describe_api(limits: Limits) -> dict[str, Any]:
    """The description as a JSON object.

    Args:
        limits: What this server takes.
    """
    kinds = (ModelList, Health, Problem)
    schemas: dict[str, Any] = {}
    for kind in kinds:
        schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {}) | {kind.__name__: schema}
    image = {"schema": {}}
    translation = {
        "summary": "Translate an image",
        "description": f"At most {limits.bytes:,} bytes and {limits.pixels:,} pixels. The way back of a translation is the "
        "translation of the answer in the other direction.",
        "operationId": "translate",
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, "description": said}
            for name, said in {"name": "a name from /api/models", "direction": "a direction of that model"}.items()
        ],
        "requestBody": {"required": True, "content": dict.fromkeys(TYPES, image)},
        "responses": {
            "200": {"description": "The translation, in the image's own size.", "content": {"image/png": image}},
            **_problems({**_EVERYWHERE, **_OF_IMAGES}),
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "gantoolkit serve",
            "version": __version__,
            "summary": "Translates images; keeps none of them.",
        },
        "paths": {
            "/api/models": {"get": _getting("listModels", "What is served", ModelList)},
            "/api/models/{name}/{direction}": {"post": translation},
            "/api/health": {"get": _getting("readHealth", "How much there is to do", Health)},
            "/api/openapi.json": {"get": _getting("describe", "This description", None)},
        },
        "security": [{}, {"token": []}],
        "components": {"schemas": schemas, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def _getting(name: str, summary: str, answer: type[BaseModel] | None) -> dict[str, Any]:
    return {
        "summary": summary,
        "operationId": name,
        "responses": {
            "200": {"description": summary, "content": _as_json(answer)},
            **_problems(_EVERYWHERE),
        },
    }


def _problems(said: dict[int, str]) -> dict[str, Any]:
    return {
        str(status): {"description": sentence, "content": _as_json(Problem)}
        for status, sentence in sorted(said.items())
    }


def _as_json(kind: type[BaseModel] | None) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{kind.__name__}"} if kind else {"type": "object"}
    return {"application/json": {"schema": schema}}
