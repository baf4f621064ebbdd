"""What went wrong, as an answer: a problem document (RFC 9457) for every error of the face.

Who calls it: the face and the pages. What it owns: the table from our errors to statuses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from ..exceptions import (
    BadArguments,
    BadCursor,
    BadDeclaration,
    BadResult,
    EngineUnavailable,
    KeyConflict,
    NotOpen,
    PayloadTooLarge,
    SchemaTooNew,
    UnknownJob,
    UnknownTask,
    UnknownTaskName,
)
from ._answers import PROBLEM
from ._body import BadBody, BodyTooLarge, BodyTooSlow, UnfitBody
from ._cursor import CursorGone
from ._pages import Answer, BadQuery
from ._places import TooManyReaders

# 400: it cannot be understood. 422: it is understood, and cannot be done. 503: later, perhaps.
STATUS_OF: Mapping[type[Exception], int] = {
    BadQuery: 400,
    BadBody: 400,
    BadCursor: 400,
    UnknownTask: 404,
    UnknownJob: 404,
    UnknownTaskName: 404,
    BodyTooSlow: 408,
    KeyConflict: 409,
    CursorGone: 410,
    BodyTooLarge: 413,
    PayloadTooLarge: 413,
    UnfitBody: 422,
    BadArguments: 422,
    BadDeclaration: 422,
    BadResult: 422,
    TooManyReaders: 429,
    NotOpen: 503,
    EngineUnavailable: 503,
    SchemaTooNew: 503,
}
EXPECTED = tuple(STATUS_OF)


def problem(status: int, detail: str, headers: Iterable[tuple[bytes, bytes]] = (), **more: Any) -> Answer:
    """The answer that says this. `more`: further members of the document."""
    title = HTTPStatus(status).phrase
    content = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    return Answer(status, content, headers, PROBLEM)


def status_of(error: Exception) -> int:
    """The status of one of our errors."""
    return next(status for kind, status in STATUS_OF.items() if isinstance(error, kind))
