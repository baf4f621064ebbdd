"""``lastcall streams list``: the free-standing streams of a database or of a running process.

A place answers with pages; they are asked for until there are as many streams as were wanted. The next page begins
behind a name, in a database and in a process alike.
"""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lastcall.asgi._cursor import make_cursor
from lastcall.asgi._streams_face import show_stream
from lastcall.cli._load import jobs_at
from lastcall.cli._remote import Away, Refused, Remote, is_url
from lastcall.cli._say import Unusable, complain, complain_of, write, write_json
from lastcall.cli._tables import draw_streams
from lastcall.exceptions import LastcallError

DONE, UNUSABLE = 0, 2

_MOST_AT_ONCE = 1000


class _Asked(NamedTuple):
    prefix: str
    after: str
    limit: int


class _Listed(NamedTuple):
    """Streams as JSON; whether there are more."""

    items: list[dict[str, Any]]
    more: bool


def run_list(
    place: str, *, prefix: str, after: str, limit: int, as_json: bool, headers: Sequence[str]
) -> int:
    """Print them, and answer the exit code."""
    asked = _Asked(prefix, after, limit)
    try:
        listed = (
            _of_process(Remote(place, headers), asked)
            if is_url(place)
            else asyncio.run(_of_store(place, asked))
        )
        _print(listed, as_json=as_json)
        return DONE
    except (Unusable, Away, Refused, LastcallError, ValueError) as error:
        complain_of(error)
        return UNUSABLE


def _print(listed: _Listed, *, as_json: bool) -> None:
    following = listed.items[-1]["name"] if listed.more else None
    if as_json:
        write_json({"items": listed.items, "shown": len(listed.items), "next": following})
        return
    write(draw_streams(listed.items, time.time()))
    if following is not None:
        complain(f"there are more; the next page: --after {shlex.quote(following)}")


async def _of_store(url: str, asked: _Asked) -> _Listed:
    async with jobs_at(url, None) as jobs:
        found = await jobs.streams.find(prefix=asked.prefix, after=asked.after, limit=asked.limit + 1)
    return _Listed([show_stream(info) for info in found[: asked.limit]], len(found) > asked.limit)


def _of_process(remote: Remote, asked: _Asked) -> _Listed:
    query: dict[str, Any] = {"prefix": asked.prefix} if asked.prefix else {}
    cursor = make_cursor("streams", asked.after) if asked.after else None
    items: list[dict[str, Any]] = []
    while True:
        query["limit"] = min(_MOST_AT_ONCE, asked.limit - len(items))
        page = remote.get("/streams", query if cursor is None else {**query, "cursor": cursor})
        try:
            items += map(_checked, page["items"])
            cursor = page["next"]
        except (KeyError, TypeError, ValueError):
            raise Unusable(f"{remote.shown} does not answer as lastcall does; is the prefix right?") from None
        if cursor is None or not page["items"] or len(items) >= asked.limit:
            return _Listed(items, cursor is not None and bool(items))


def _checked(item: Mapping[str, Any]) -> dict[str, Any]:
    """The same, with what is drawn of it. Raises `KeyError`, `TypeError`, `ValueError` for what is no stream."""
    forked_from = item["forked_from"]
    return {
        **item,
        "name": str(item["name"]),
        "content_type": str(item["content_type"]),
        "closed": bool(item["closed"]),
        "entries": int(item["entries"]),
        "bytes": int(item["bytes"]),
        "updated_at": float(item["updated_at"]),
        "forked_from": None if forked_from is None else str(forked_from),
    }
