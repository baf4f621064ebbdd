"""Why a log cannot be read, as an answer: the status that says it, and a problem document (RFC 9457).

Who calls it: `_log_response`. An `EventSource` stops for good at every one of them, and cannot read the document; a
page that wants to know asks for the same URL with `fetch`.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from ..exceptions import (
    BadCursor,
    EngineUnavailable,
    EntriesGone,
    LastcallError,
    NotOpen,
    SchemaTooNew,
    UnknownJob,
    UnknownRun,
    UnknownStream,
)
from ._answers import answer_json, refusal_headers
from ._log_request import PARAMETERS
from ._pages import BadQuery
from ._types import Scope, Send

_STATUS_OF: Mapping[type[Exception], int] = {
    BadQuery: 400,
    BadCursor: 400,
    UnknownJob: 404,
    UnknownRun: 404,
    UnknownStream: 404,
    EntriesGone: 410,
    NotOpen: 503,
    EngineUnavailable: 503,
    SchemaTooNew: 503,
}

# LastcallError as a whole: what only some log of somebody's raises is not expected here, and not answered.
LogProblem = (BadQuery, LastcallError)


async def answer_problem(scope: Scope, send: Send, error: Exception, retry_after_seconds: int) -> None:
    """Answer with what the error means. Raises the error itself, if it is none of those that logs raise."""
    status = next((status for kind, status in _STATUS_OF.items() if isinstance(error, kind)), None)
    if status is None:
        raise error
    content: dict[str, Any] = {"title": HTTPStatus(status).phrase, "status": status, "detail": str(error)}
    if isinstance(error, EntriesGone):
        content["first"] = error.first
        content["snapshot_url"] = _page_url(scope, error.first - 1)
    headers = refusal_headers(scope, retry_after_seconds) if status == 503 else []
    await answer_json(scope, send, status, content, headers, media_type=b"application/problem+json")


def _page_url(scope: Scope, after: int) -> str:
    """The same log as a page of JSON, from what is still kept on; with what else the route was asked."""
    root, path = scope.get("root_path", ""), scope["path"]
    whole = path if not root or path.startswith(root + "/") else root + path
    query = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    kept = [(name, value) for name, value in query if name not in PARAMETERS]
    return f"{quote(whole)}?{urlencode([*kept, ('format', 'json'), ('after', str(after))])}"
