"""The OpenAPI document of the face, written from the table of routes. Pure.

Who calls it: `_face`, for PREFIX/openapi.json. It says nothing that does not stand in the table by which the face
answers, so it cannot fall behind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from . import _models as models
from ._answers import PROBLEM
from ._pages import Param, Route, Says
from ._schema import Schemas

_ABOUT = """What this process does: tasks, durable jobs, workers, schedules, the shutdown.

Every error is a problem document (RFC 9457). HEAD works wherever GET does. A request that changes something is refused
when a page of another site makes it, and with the content types that a form can send. Below `/streams/` it is the open
Durable Streams protocol, which has a specification of its own: there bodies are of any type."""

# What any page may answer: a parameter that there is none of, who are you, not you, not now.
_ALWAYS = (400, 401, 403, 503)

_WHY = {
    400: "the query, the cursor or the body cannot be read",
    401: "the app asks who you are",
    403: "not let in; or nothing can be changed here; or a page of another site asks",
    404: "there is no such thing",
    405: "this is the log of a job, which its job writes",
    408: "the body has not come in time",
    409: "its state, or a key that is taken, forbids it",
    410: "what the cursor points at is not kept any more",
    413: "the body is too large",
    415: "a content type that a form can send",
    422: "it is understood, and cannot be done",
    429: "too many streams are read already",
    507: "there is no room for it in memory",
    503: "the process has not started, shuts down, or its store is away",
}


def document(routes: Iterable[Route], prefix: str, version: str) -> dict[str, Any]:
    """The whole document. `prefix`: where the paths begin, as the client sees them."""
    schemas = Schemas()
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(f"/{route.path}", {})[route.method.lower()] = _operation(route, schemas)
    schemas.of(models.Problem)
    return {
        "openapi": "3.1.0",
        "info": {"title": "lastcall", "version": version, "description": _ABOUT},
        "servers": [{"url": prefix}],
        "paths": paths,
        "components": {"schemas": schemas.components},
    }


def _operation(route: Route, schemas: Schemas) -> dict[str, Any]:
    refuses = sorted(
        {*_ALWAYS, *route.refuses, *(() if route.method == "GET" or route.is_protocol else (415,))}
    )
    answers = {str(status): _answer(says, schemas) for status, says in route.says.items()}
    answers |= {
        str(status): _problem(status, route.refusal_headers.get(status, {}))
        for status in refuses
        if str(status) not in answers
    }
    words = re.findall(r"{(\w+)}", route.path)
    known = {word.name: word for word in route.words}
    found: dict[str, Any] = {
        "operationId": _operation_id(route),
        "summary": route.about,
        "tags": [route.path.partition("/")[0]],
        "parameters": [
            *(_path_parameter(known.get(word, Param(word, ""))) for word in words),
            *(_parameter("query", param) for param in route.query),
            *(_parameter("header", param) for param in route.headers),
        ],
        "responses": answers,
    }
    if route.body is not None:
        content: dict[str, Any] = {"schema": schemas.of(route.body, closed=True)}
        if route.body_example is not None:
            content["example"] = route.body_example
        found["requestBody"] = {"required": True, "content": {"application/json": content}}
    elif route.body_media:
        found["requestBody"] = {"required": False, "content": {media: {} for media in route.body_media}}
    return found


def _operation_id(route: Route) -> str:
    words = [word for word in re.split(r"[^a-z]+", route.path) if word]
    return "_".join([route.method.lower(), *words])


def _answer(says: Says, schemas: Schemas) -> dict[str, Any]:
    found: dict[str, Any] = {"description": says.about}
    if says.headers:
        found["headers"] = _headers(says.headers)
    if says.model is None and says.media == ("application/json",):
        return found
    content: dict[str, Any] = {}
    for media in says.media:
        if media == "application/json":
            content[media] = {"schema": schemas.of(says.model), "example": says.example}
        else:
            content[media] = {}  # a stream, of which a schema could say nothing
    return {**found, "content": content}


def _problem(status: int, headers: Mapping[str, str]) -> dict[str, Any]:
    example = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": _WHY[status],
    }
    content = {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}
    found: dict[str, Any] = {"description": _WHY[status], "content": {PROBLEM.decode(): content}}
    if status in (429, 503):
        headers = {"Retry-After": "seconds until it may be worth asking again", **headers}
    if headers:
        found["headers"] = _headers(headers)
    return found


def _headers(headers: Mapping[str, str]) -> dict[str, Any]:
    return {name: {"description": about, "schema": {"type": "string"}} for name, about in headers.items()}


def _path_parameter(word: Param) -> dict[str, Any]:
    return {**_parameter("path", word), "required": True}


def _parameter(place: str, param: Param) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string", "minLength": 1, **param.other}
    if param.choices:
        schema = {"type": "string", "enum": [str(choice) for choice in param.choices]}
    elif param.least is not None:
        schema = {"type": "integer", "minimum": param.least}
        if param.most is not None:
            schema["maximum"] = param.most
    if param.other.get("type", "string") != "string":
        schema = dict(param.other)
    if param.many:
        schema = {"type": "array", "items": schema}
    found: dict[str, Any] = {"name": param.name, "in": place, "schema": schema}
    if param.about:
        found["description"] = param.about
    if param.example is not None:
        found["example"] = param.example
    return found
