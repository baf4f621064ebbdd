"""Dashboard: an ASGI app that serves the page and its assets, and nothing else.

Who calls it: the face, which has let the client in (`allow`) and knows the prefix; here only the last word of the path
counts. What it owns: the headers that hold the page to its own files. The page knows no users and no secrets: whatever
it shows, it asks the face for. What can go wrong: a name that is none of ours, which is 404; no file is opened by a
name that a client gave.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
from importlib.resources import files
from typing import NamedTuple

from ..asgi._answers import answer_json
from ..asgi._problems import problem
from ..asgi._types import Headers, Receive, Scope, Send, app_path, get_header

_PAGE = "index.html"

_MEDIA_TYPES = {
    "html": b"text/html; charset=utf-8",
    "css": b"text/css; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "svg": b"image/svg+xml",
}

# Everything the page needs is at its own origin; it can be framed by nobody and send nothing anywhere else.
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_GUARDS: Headers = [
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]

# `no-cache` is: keep it, and ask each time. A name with a hash in it would need a build step, and a page that outlives
# a deploy must not be put together from two versions.
_HEADERS: Headers = [(b"cache-control", b"no-cache"), (b"vary", b"accept-encoding"), *_GUARDS]


class _Asset(NamedTuple):
    """A file as it is sent: `headers` are its own, and name its ETag."""

    body: bytes
    etag: bytes
    headers: Headers


class Dashboard:
    """The page (PREFIX/) and its assets (PREFIX/assets/NAME), for GET and HEAD.

    Its files are read and compressed once in a process; on the wire they are about 30 kB.

        app = Lastcall(app, manager, jobs=jobs, dashboard=Dashboard())
    """

    def __init__(self) -> None:
        self._plain, self._packed = _assets()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = app_path(scope)
        *_, folder, name = path.split("/")
        if name and folder != "assets":
            # Without the slash at its end the page's links would lead beside the prefix.
            await _answer(scope, send, 308, b"", [(b"location", f"{name}/".encode())])
            return
        asset = (self._packed if _takes_gzip(scope) else self._plain).get(name or _PAGE)
        if asset is None:
            missing = problem(404, f"the dashboard has no file {name[:200]!r}")
            await answer_json(scope, send, 404, missing.content, _GUARDS, media_type=missing.media_type)
        elif _knows(scope, asset.etag):
            await _answer(scope, send, 304, None, [(b"etag", asset.etag)])
        else:
            await _answer(scope, send, 200, asset.body, asset.headers)


@functools.cache
def _assets() -> tuple[dict[str, _Asset], dict[str, _Asset]]:
    """The files by name: as they are, and compressed."""
    plain: dict[str, _Asset] = {}
    packed: dict[str, _Asset] = {}
    for file in files(__package__).joinpath("static").iterdir():
        body = file.read_bytes()
        digest = hashlib.sha256(body).hexdigest()[:20]
        media_type = (b"content-type", _MEDIA_TYPES[file.name.rpartition(".")[2]])
        for known, suffix, sent, headers in (
            (plain, "", body, []),
            (packed, "-gzip", gzip.compress(body, mtime=0), [(b"content-encoding", b"gzip")]),
        ):
            etag = f'"{digest}{suffix}"'.encode()
            known[file.name] = _Asset(sent, etag, [(b"etag", etag), media_type, *headers])
    return plain, packed


def _takes_gzip(scope: Scope) -> bool:
    accepted = get_header(list(scope.get("headers", ())), b"accept-encoding") or b""
    words = [word.replace(b" ", b"") for word in accepted.lower().split(b",")]
    return any(word.partition(b";")[0] == b"gzip" and not word.endswith(b";q=0") for word in words)


def _knows(scope: Scope, etag: bytes) -> bool:
    known = get_header(list(scope.get("headers", ())), b"if-none-match") or b""
    # A proxy that compresses makes a weak tag of ours; what is inside is the same.
    return etag in [tag.strip().removeprefix(b"W/") for tag in known.split(b",")]


async def _answer(scope: Scope, send: Send, status: int, body: bytes | None, headers: Headers) -> None:
    length = [] if body is None else [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *length, *_HEADERS]})
    sent = b"" if body is None or scope.get("method") == "HEAD" else body
    await send({"type": "http.response.body", "body": sent})
