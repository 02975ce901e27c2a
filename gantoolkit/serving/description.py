"""The server's responses, and their description for programs (OpenAPI 3.1)."""

from typing import Any

from pydantic import BaseModel, Field

from gantoolkit.runtime.version import __version__

__all__ = [
    "NOTES_HEADER",
    "TYPES",
    "Direction",
    "Health",
    "Limits",
    "ModelList",
    "Problem",
    "ServedModel",
    "describe_api",
]

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
"""Accepted content types. The actual format is determined from the content of the image."""


NOTES_HEADER = "X-Notes"
"""The response header that names what of an image is not used, and how its colors are read."""


class Direction(BaseModel):
    """A direction in which a model translates, with its channels."""

    direction: str = Field(description="A2B or B2A")
    in_channels: int
    out_channels: int
    step: int = Field(description="number of training steps")


class ServedModel(BaseModel):
    """A model and its directions."""

    name: str
    recipe: str
    directions: list[Direction]


class Limits(BaseModel):
    """The largest image that is accepted."""

    bytes: int = 16_000_000
    pixels: int = 4096 * 4096


class ModelList(BaseModel):
    """All models, and the limits of images."""

    models: list[ServedModel]
    limits: Limits


class Health(BaseModel):
    """The state of the queue."""

    waiting: int = Field(description="images being uploaded, waiting, or being translated")
    places: int = Field(description="the maximum of `waiting`")
    served: int = Field(description="images translated since the start")


class Problem(BaseModel):
    """The body of an error response."""

    error: str = Field(description="the error in one sentence")


_COMMON_ERRORS = {
    400: "The Host header is not a host name of this server.",
    401: "The token is missing or wrong, if the server requires one.",
    429: "Too many requests from one address; `Retry-After` says when to try again.",
    500: "An internal error of the server.",
}
_TRANSLATION_ERRORS = {
    400: "The body is empty or not a readable image, or the Host header is not a host name of this server.",
    403: "The request comes from a page of another origin.",
    404: "The model does not exist, or does not translate in this direction.",
    408: "The body did not arrive in time.",
    413: "The body exceeds the bytes in `limits` of /api/models.",
    415: "The Content-Type is not that of a supported image format.",
    422: "The image exceeds the pixels in `limits`, or its size cannot be translated.",
    503: "The queue is full; `Retry-After` says when to try again.",
}


_NOTES = (
    "what of the image is not used and how its colors are read: `has several frames, of which only the first is used`"
)


def describe_api(limits: Limits) -> dict[str, Any]:
    """The OpenAPI description as a JSON object.

    Args:
        limits: The limits of this server.
    """
    schemas: dict[str, Any] = {}
    for model in (ModelList, Health, Problem):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {}) | {model.__name__: schema}
    image = {"schema": {}}
    parameters = {"name": "a name from /api/models", "direction": "a direction of that model"}
    translation = {
        "summary": "Translate an image",
        "description": f"At most {limits.bytes:,} bytes and {limits.pixels:,} pixels. To reconstruct the image, translate the "
        "response in the other direction.",
        "operationId": "translate",
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, "description": description}
            for name, description in parameters.items()
        ],
        "requestBody": {"required": True, "content": dict.fromkeys(TYPES, image)},
        "responses": {
            "200": {
                "description": "The translation, in the size of the image.",
                "content": {"image/png": image},
                "headers": {NOTES_HEADER: {"description": _NOTES, "schema": {"type": "string"}}},
            },
            **_problems({**_COMMON_ERRORS, **_TRANSLATION_ERRORS}),
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "gantoolkit serve",
            "version": __version__,
            "summary": "Translates images without storing them.",
        },
        "paths": {
            "/api/models": {"get": _get_operation("listModels", "The models and limits", ModelList)},
            "/api/models/{name}/{direction}": {"post": translation},
            "/api/health": {"get": _get_operation("readHealth", "The state of the queue", Health)},
            "/api/openapi.json": {"get": _get_operation("describe", "This description", None)},
        },
        "security": [{}, {"token": []}],
        "components": {"schemas": schemas, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def _get_operation(name: str, summary: str, response: type[BaseModel] | None) -> dict[str, Any]:
    return {
        "summary": summary,
        "operationId": name,
        "responses": {
            "200": {"description": summary, "content": _as_json(response)},
            **_problems(_COMMON_ERRORS),
        },
    }


def _problems(descriptions: dict[int, str]) -> dict[str, Any]:
    return {
        str(status): {"description": description, "content": _as_json(Problem)}
        for status, description in sorted(descriptions.items())
    }


def _as_json(model: type[BaseModel] | None) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{model.__name__}"} if model else {"type": "object"}
    return {"application/json": {"schema": schema}}
