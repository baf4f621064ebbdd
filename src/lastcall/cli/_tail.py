"""``lastcall streams tail``: follows a job's log or a free-standing stream, from a database or a running process.

A source yields entries with the cursor behind them; `tail` shows them and remembers that cursor, which is what Ctrl-C
prints. 0: read to the end. 1: it went on elsewhere, or not all of it is kept any more. 2: what could not be used.
130: Ctrl-C.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple, cast
from urllib.parse import quote

from lastcall.asgi._durable_words import BEGINNING, Malformed, parse_offset
from lastcall.asgi._log_wire import entry_json
from lastcall.cli._ids import Ids
from lastcall.cli._load import jobs_at
from lastcall.cli._remote import Away, Refused, Remote, RemoteAnswer, ServerEvent, is_url
from lastcall.cli._say import Unusable, complain, without_password, write
from lastcall.cli._typist import Typist
from lastcall.exceptions import EntriesGone, JobError, LastcallError, UnknownEngine, UnknownStream
from lastcall.jobs import Jobs
from lastcall.jobs._ids import is_id
from lastcall.streams import Entry, Log, follow
from lastcall.streams._policy import is_json, media_type

DONE, BROKEN_OFF, UNUSABLE, INTERRUPTED = 0, 1, 2, 130

_PAUSE_SECONDS = (0.2, 3.0)


class Chunk(NamedTuple):
    """Entries, and the cursor with which to go on behind them."""

    entries: Sequence[Entry]
    cursor: str


class ReaderLeft(Exception):
    """Nobody reads our output any more."""


class Tail:
    """One reading: shows chunks, and knows where it stands."""

    def __init__(self, after: str, *, as_json: bool, quiet: bool) -> None:
        self.cursor = after
        self._as_json = as_json
        self._typist = Typist(_write, _tell(quiet), size=_terminal_size())

    def show(self, chunk: Chunk) -> None:
        # Ctrl-C between the two would print a cursor with which entries are shown twice.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
        try:
            if self._as_json:
                _write("".join(f"{entry_json(entry)}\n" for entry in chunk.entries))
            else:
                self._typist.type(chunk.entries)
            self.cursor = chunk.cursor
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))

    def finish(self) -> None:
        if not self._as_json:
            self._typist.finish()


def run_tail(
    place: str, name: str, after: str, *, as_json: bool, quiet: bool, patience: float, headers: Sequence[str]
) -> int:
    """Follow until the end, and answer the exit code."""
    tail = Tail(after, as_json=as_json, quiet=quiet)
    code = UNUSABLE
    try:
        if is_url(place):
            for chunk in _RemoteTail(Remote(place, headers), name, patience).chunks(after):
                tail.show(chunk)
        else:
            asyncio.run(_tail_store(tail, place, name))
        code = DONE
    except ReaderLeft:
        return DONE
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Away as error:
        complain(str(error))
        code = BROKEN_OFF
    except (Unusable, Refused, LastcallError, ValueError) as error:
        complain(str(error), error.details if isinstance(error, Unusable) else "")
        code = BROKEN_OFF if isinstance(error, EntriesGone) else UNUSABLE
    _finish(tail)
    if code in (BROKEN_OFF, INTERRUPTED):
        again = shlex.join(
            ["lastcall", "streams", "tail", without_password(place), name, "--after", tail.cursor]
        )
        complain(f"read up to {tail.cursor}; go on with: {again}")
    return code


def _finish(tail: Tail) -> None:
    try:
        tail.finish()
    except ReaderLeft:
        pass


def _write(text: str) -> None:
    if text and not write(text):
        raise ReaderLeft


def _tell(quiet: bool) -> Callable[[str], object]:
    if quiet:
        return lambda line: None
    dim, plain = (
        ("\x1b[2m", "\x1b[0m") if sys.stderr.isatty() and not os.environ.get("NO_COLOR") else ("", "")
    )
    return lambda line: sys.stderr.write(f"{dim}{line}{plain}\n")


def _terminal_size() -> tuple[int, int] | None:
    if not sys.stdout.isatty():
        return None
    size = os.get_terminal_size(sys.stdout.fileno())
    return max(1, size.columns), max(1, size.lines)


# --- from a database ------------------------------------------------------------------------------------


async def _tail_store(tail: Tail, url: str, name: str) -> None:
    async with jobs_at(url, None) as jobs:
        log = await _find_log(jobs, name)
        async for chunk in _chunks_of(log, _number(tail.cursor)):
            tail.show(chunk)


async def _find_log(jobs: Jobs, name: str) -> Log:
    """By its whole id a job; else the stream of that name; else a job by the beginning or end of its id."""
    if not is_id(name.lower()):
        try:
            stream = jobs.streams.open(name)
            await stream.info()
            return cast(Log, stream)
        except UnknownEngine:  # this store keeps no free-standing streams
            pass
        except UnknownStream as error:
            try:
                return jobs.job(await Ids(jobs).whole(name)).log()
            except JobError:
                raise Unusable(f"{error}; and no job's id begins or ends so") from None
    return jobs.job(await Ids(jobs).whole(name)).log()


async def _chunks_of(log: Log, after: int) -> AsyncIterator[Chunk]:
    async with aclosing(cast(Any, follow(log, after))) as pages:
        async for entries in pages:
            yield Chunk(entries, str(entries[-1].seq))


def _number(after: str) -> int:
    """A cursor as the number of an entry; an offset of the HTTP face has it in front."""
    number = after.partition("_")[0]
    if not (number.isascii() and number.isdigit() and len(number) <= 16):
        raise Unusable(f"--after is the number of the last entry that was read, 0 for none, not {after!r}")
    return int(number)


# --- from a running process -----------------------------------------------------------------------------


class _RemoteTail:
    """Reads by HTTP, and comes back where it left off when the process was replaced by another one."""

    def __init__(self, remote: Remote, name: str, patience_seconds: float) -> None:
        self._remote = remote
        self._name = name
        self._patience = patience_seconds
        self._is_job = is_id(name.lower())
        self._heard_at = time.monotonic()
        self._pause = _PAUSE_SECONDS[0]
        self._ended = False
        self._content_type: str | None = None  # of a stream, once it is known

    def chunks(self, after: str) -> Iterator[Chunk]:
        cursor = self._checked(after)
        while not self._ended:
            try:
                with self._ask(cursor) as answer:
                    self._heard()
                    for chunk in self._read(answer, cursor):
                        self._heard()
                        cursor = chunk.cursor
                        yield chunk
            except Away as error:
                self._pause = max(self._pause, min(error.retry_seconds or 0.0, _PAUSE_SECONDS[1]))
                if time.monotonic() - self._heard_at > self._patience:
                    raise
            if not self._ended:
                time.sleep(self._pause)
                self._pause = min(2 * self._pause, _PAUSE_SECONDS[1])

    def _heard(self) -> None:
        self._heard_at, self._pause = time.monotonic(), _PAUSE_SECONDS[0]

    def _checked(self, after: str) -> str:
        if self._is_job:
            return str(_number(after))
        if after in ("0", BEGINNING):
            return BEGINNING
        try:
            parse_offset(after)
        except Malformed:
            raise Unusable(
                f"over HTTP a stream goes on from an offset, such as {'0' * 15}5_{'0' * 14}42, which Ctrl-C prints; "
                f"not from {after!r}"
            ) from None
        return after

    def _ask(self, cursor: str) -> RemoteAnswer:
        if self._is_job:
            path, query = f"/jobs/{self._name}/events", {"after": cursor}
        else:
            path, query = f"/streams/{quote(self._name, safe='/')}", {"offset": cursor, "live": "sse"}
            if self._content_type is None:  # events do not tell
                with self._remote.open("HEAD", path) as head:
                    self._content_type = head.header("content-type") or ""
        return self._remote.open("GET", path, query, accept="text/event-stream")

    def _read(self, answer: RemoteAnswer, cursor: str) -> Iterator[Chunk]:
        if answer.status == 204:  # it is over, and all of it was read
            self._ended = True
            return
        if not (answer.header("content-type") or "").startswith("text/event-stream"):
            raise Unusable(f"{self._remote.shown} does not answer as lastcall does; is the prefix right?")
        try:
            if self._is_job:
                yield from self._read_job(answer.events(), cursor)
            else:
                yield from self._read_stream(answer, cursor)
        except (ValueError, KeyError, TypeError):
            raise Unusable(f"{self._remote.shown} sends events that are none of lastcall's") from None

    def _read_job(self, events: Iterable[ServerEvent], cursor: str) -> Iterator[Chunk]:
        for event in events:
            self._note_retry(event)
            if not event.data:
                continue
            told = json.loads(event.data)
            if "seq" in told:
                entry = _entry(told)
                yield Chunk([entry], str(entry.seq))
            elif event.type == "end":
                self._ended = True
            elif event.type == "gone":
                raise EntriesGone(
                    f"entries up to {told['first'] - 1} are not kept any more", first=told["first"]
                )

    def _read_stream(self, answer: RemoteAnswer, cursor: str) -> Iterator[Chunk]:
        seq = 0 if cursor == BEGINNING else _number(cursor)
        entries: list[Entry] = []
        for event in answer.events():
            self._note_retry(event)
            if event.type == "data":
                entries = _entries(event.data, seq, self._content_type or "")
            elif event.type == "control":
                told = json.loads(event.data)
                offset = str(told["streamNextOffset"])
                self._ended = told.get("streamClosed") is True
                yield Chunk(entries, offset)
                entries, seq = [], _number(offset)

    def _note_retry(self, event: ServerEvent) -> None:
        if event.retry_seconds is not None:
            self._pause = min(max(event.retry_seconds, _PAUSE_SECONDS[0]), _PAUSE_SECONDS[1])


def _entry(told: Any) -> Entry:
    data = json.dumps(told["data"], ensure_ascii=False)
    return Entry(int(told["seq"]), str(told["type"]), data, int(told["attempt"]), told["step"], told["at"])


def _entries(data: str, after: int, content_type: str) -> list[Entry]:
    """What one event of a free-standing stream holds. Its numbers are counted; when it was written is not told."""
    now = time.time()
    if is_json(content_type):
        return [
            Entry(after + n, "message", json.dumps(value, ensure_ascii=False), 0, None, now)
            for n, value in enumerate(json.loads(data), 1)
        ]
    kind = "text" if media_type(content_type).startswith("text/") else "bytes"
    return [Entry(after + 1, kind, json.dumps(data, ensure_ascii=False), 0, None, now)]
