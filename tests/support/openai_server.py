"""A local server that speaks the OpenAI wire protocol: chat completions and responses, from a script, with faults.

It is the ledger outside: it writes down every request, which of them would have been paid for, how far its answer got,
and whether the client hung up on it. What it answers depends only on the conversation it is sent (the n-th turn of the
model is the n-th reply of the script), so a call that is made twice is answered twice, and counted twice.

    with OpenAIServer([Reply(tools=[Tool("search", {"q": "x"})]), Reply("found it")]) as server:
        client = AsyncOpenAI(base_url=server.url, api_key="none")

`faults={2: Fault(hold_after=3)}` goes with the second paid request. It runs on a thread and a loop of its own, so that
a test may kill the processes that call it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, urlsplit

PATIENCE_SECONDS = 30.0

MODEL = "scripted"


@dataclass(frozen=True)
class Tool:
    """A call of a tool that the model asks for."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str | None = None


@dataclass(frozen=True)
class Reply:
    """One turn of the model: text, calls of tools, or both."""

    text: str = ""
    tools: Sequence[Tool] = ()

    @property
    def pieces(self) -> list[str]:
        """The text as it is streamed: a word at a time."""
        return re.findall(r"\S+\s*", self.text)


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one paid request.

    `status`: it is refused, with `Retry-After` if `retry_after_seconds` is given. `hold_after`: after so many pieces
    the model stands still until `server.release()`. `cut_after`: after so many pieces the connection is cut (the model
    of a background response works on). `slow_seconds`: between two pieces.
    """

    status: int | None = None
    retry_after_seconds: float | None = None
    hold_after: int | None = None
    cut_after: int | None = None
    slow_seconds: float = 0.0


@dataclass
class Call:
    """One request. `sent`: pieces of text that were written to the client; `finished`: all of the answer was;
    `hung_up`: the client left before that."""

    method: str
    path: str
    query: dict[str, str]
    body: dict[str, Any]
    paid: bool
    status: int = 0
    sent: int = 0
    finished: bool = False
    hung_up: bool = False


@dataclass
class _Background:
    """A response that the provider works on by itself. Its events are kept for whoever comes back."""

    id: str
    events: list[dict[str, Any]]
    changed: asyncio.Event
    response: dict[str, Any]
    ended: bool = False
    task: asyncio.Task[None] | None = None


class _Cut(Exception):
    """The connection is cut now, without an end."""


class _NoReply(Exception):
    """The script has nothing to say here: a mistake of the test."""


class OpenAIServer:
    def __init__(
        self,
        script: Sequence[Reply] | Callable[[dict[str, Any]], Reply],
        *,
        faults: Mapping[int, Fault] | None = None,
    ) -> None:
        self.script = script
        self.faults = dict(faults or {})
        self.calls: list[Call] = []
        self.mistakes: list[str] = []
        # Whether background responses are streamed again; OpenAI refuses when they are older than five minutes.
        self.streams_again = True
        self.port = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="openai-server", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._released: asyncio.Event | None = None
        self._responses: dict[str, _Background] = {}
        self._ids = itertools.count(1)
        self._paid = itertools.count(1)

    # --- for tests -------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def paid(self) -> list[Call]:
        """Every request that began a generation, also if nobody heard its end."""
        return [call for call in self.calls if call.paid and call.status in (0, 200)]

    @property
    def cancelled(self) -> list[str]:
        """The background responses that were cancelled."""
        return [call.path.split("/")[-2] for call in self.calls if call.path.endswith("/cancel")]

    def release(self) -> None:
        """Let every held generation go on."""
        assert self._loop is not None and self._released is not None
        self._loop.call_soon_threadsafe(self._released.set)

    def forget(self) -> None:
        """Keep no response any more."""
        self._responses.clear()

    def __enter__(self) -> OpenAIServer:
        self._thread.start()
        assert self._ready.wait(PATIENCE_SECONDS), "the local server did not start"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        assert self._loop is not None and self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive(), "the local server did not stop"
        if error is not None:
            error.add_note("\n".join([*self.mistakes, *map(str, self.calls)]))
        else:
            assert not self.mistakes, self.mistakes

    # --- the server ------------------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop, self._released = asyncio.Event(), asyncio.Event()
        handlers: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._connection(reader, writer))
            handlers.add(task)
            task.add_done_callback(handlers.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        tasks = [*handlers, *(one.task for one in self._responses.values() if one.task is not None)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request for each connection: so whatever comes after it can only be the client's leaving."""
        try:
            request = await _read_request(reader)
            if request is None:
                return
            call = self._note(*request)
            gone = asyncio.ensure_future(reader.read(1))
            answer = asyncio.ensure_future(self._answer(call, writer))
            try:
                await asyncio.wait({gone, answer}, return_when=asyncio.FIRST_COMPLETED)
                call.hung_up = not answer.done() and not call.finished
            finally:
                gone.cancel()
                answer.cancel()
                _, error = await asyncio.gather(gone, answer, return_exceptions=True)
            if isinstance(error, _Cut):
                writer.transport.abort()
            elif isinstance(error, _NoReply):
                self.mistakes.append(str(error))
                await _refuse(call, writer, 400, str(error))
            elif isinstance(error, Exception) and not isinstance(error, ConnectionError):
                self.mistakes.append(repr(error))
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    def _note(self, method: str, target: str, body: bytes) -> Call:
        parts = urlsplit(target)
        path = parts.path.removeprefix("/v1")
        paid = method == "POST" and path in ("/chat/completions", "/responses")
        call = Call(method, path, dict(parse_qsl(parts.query)), json.loads(body or b"{}"), paid)
        self.calls.append(call)
        return call

    async def _answer(self, call: Call, writer: asyncio.StreamWriter) -> None:
        fault = self.faults.get(next(self._paid), Fault()) if call.paid else Fault()
        if fault.status is not None:
            await _refuse(call, writer, fault.status, "the script says so", fault.retry_after_seconds)
            return
        handlers: list[tuple[str, str, Any]] = [
            ("POST", r"/chat/completions", self._chat),
            ("POST", r"/responses", self._create),
            ("GET", r"/responses/([^/]+)", self._retrieve),
            ("POST", r"/responses/([^/]+)/cancel", self._cancel),
        ]
        for method, pattern, handler in handlers:
            match = re.fullmatch(pattern, call.path)
            if match is not None and method == call.method:
                await handler(call, writer, fault, *match.groups())
                return
        await _refuse(call, writer, 404, f"no such page: {call.method} {call.path}")

    def _reply(self, call: Call) -> Reply:
        if callable(self.script):
            return self.script(call.body)
        turn = turns_of_the_model(call.body)
        if turn >= len(self.script):
            raise _NoReply(f"the script has {len(self.script)} replies, and reply {turn + 1} was asked for")
        return self.script[turn]

    async def _pace(self, fault: Fault, sent: int, *, may_cut: bool = True) -> None:
        """Before the piece after `sent` others."""
        assert self._released is not None
        if may_cut and fault.cut_after == sent:
            raise _Cut
        if fault.hold_after == sent:
            await self._released.wait()
        if fault.slow_seconds:
            await asyncio.sleep(fault.slow_seconds)

    # --- chat completions ------------------------------------------------------------------------------

    async def _chat(self, call: Call, writer: asyncio.StreamWriter, fault: Fault) -> None:
        reply, n = self._reply(call), next(self._ids)
        head = {"id": f"chatcmpl-{n}", "created": int(time.time()), "model": MODEL}
        tools = [
            {
                "id": tool.id or f"call_{n}_{nth}",
                "type": "function",
                "function": {"name": tool.name, "arguments": json.dumps(tool.arguments)},
            }
            for nth, tool in enumerate(reply.tools)
        ]
        usage = chat_usage(call.body, reply)
        reason = "tool_calls" if tools else "stop"
        if not call.body.get("stream"):
            for sent in range(len(reply.pieces) + 1):
                await self._pace(fault, sent)
            message = {
                "role": "assistant",
                "content": reply.text or None,
                **({"tool_calls": tools} if tools else {}),
            }
            choice = {"index": 0, "message": message, "finish_reason": reason}
            await _json(
                call, writer, {**head, "object": "chat.completion", "choices": [choice], "usage": usage}
            )
            return
        await _begin_stream(call, writer)
        chunk = {**head, "object": "chat.completion.chunk"}

        async def send(delta: dict[str, Any], finish: str | None = None) -> None:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            await _event(writer, {**chunk, "choices": [choice]})

        await send({"role": "assistant", "content": ""})
        for piece in reply.pieces:
            await self._pace(fault, call.sent)
            await send({"content": piece})
            call.sent += 1
        await self._pace(fault, call.sent)
        for nth, tool in enumerate(tools):
            await send({"tool_calls": [{"index": nth, **tool}]})
        await send({}, reason)
        if (call.body.get("stream_options") or {}).get("include_usage"):
            await _event(writer, {**chunk, "choices": [], "usage": usage})
        call.finished = True  # before the client can know it, and the test that waits for the client
        await _write(writer, b"data: [DONE]\n\n")
        await _end_stream(writer)

    # --- responses -------------------------------------------------------------------------------------

    async def _create(self, call: Call, writer: asyncio.StreamWriter, fault: Fault) -> None:
        one = self._begin_response(call, fault)
        if not call.body.get("background"):
            try:
                await self._tail(call, writer, one, 0, fault, stream=bool(call.body.get("stream")))
            finally:
                assert one.task is not None
                one.task.cancel()  # in the foreground nobody works for a client that has left
        elif call.body.get("stream"):
            await self._tail(call, writer, one, 0, fault, stream=True)
        else:
            await _json(call, writer, one.response)

    def _begin_response(self, call: Call, fault: Fault) -> _Background:
        background = bool(call.body.get("background"))
        response = {
            "id": f"resp_{next(self._ids)}",
            "object": "response",
            "created_at": time.time(),
            "status": "queued" if background else "in_progress",
            "background": background,
            "error": None,
            "incomplete_details": None,
            "instructions": call.body.get("instructions"),
            "metadata": {},
            "model": MODEL,
            "output": [],
            "parallel_tool_calls": True,
            "temperature": 1.0,
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "usage": None,
        }
        one = _Background(str(response["id"]), [], asyncio.Event(), response)
        self._responses[one.id] = one
        one.task = asyncio.ensure_future(self._generate(one, call.body, self._reply(call), fault))
        return one

    async def _generate(self, one: _Background, body: dict[str, Any], reply: Reply, fault: Fault) -> None:
        """The model at work; who listens does not matter to it."""

        def tell(type: str, **data: Any) -> None:
            one.events.append({"type": type, "sequence_number": len(one.events), **data})
            one.changed.set()
            one.changed = asyncio.Event()

        tell("response.created", response=dict(one.response))
        one.response["status"] = "in_progress"
        tell("response.in_progress", response=dict(one.response))
        for event in output_events(one.id, reply):
            if event["type"] == "response.output_text.delta":
                await self._pace(
                    fault, sum(old["type"] == event["type"] for old in one.events), may_cut=False
                )
            if event["type"] == "response.output_item.done":
                await self._pace(fault, len(reply.pieces), may_cut=False)
                one.response["output"] = [*one.response["output"], event["item"]]
            tell(**event)
        one.response.update(status="completed", usage=response_usage(body, reply))
        one.ended = True
        tell("response.completed", response=dict(one.response))

    async def _tail(
        self,
        call: Call,
        writer: asyncio.StreamWriter,
        one: _Background,
        at: int,
        fault: Fault,
        *,
        stream: bool,
    ) -> None:
        if stream:
            await _begin_stream(call, writer)
        while True:
            changed = one.changed
            while stream and at < len(one.events):
                event = one.events[at]
                if event["type"] == "response.output_text.delta":
                    if fault.cut_after == call.sent:
                        raise _Cut
                    call.sent += 1
                call.finished = event["type"] == "response.completed"
                await _event(writer, event, name=event["type"])
                at += 1
            if one.ended:
                break
            await changed.wait()
        if stream:
            await _end_stream(writer)
        else:
            await _json(call, writer, one.response)

    async def _retrieve(self, call: Call, writer: asyncio.StreamWriter, fault: Fault, id: str) -> None:
        one = self._responses.get(id)
        if one is None:
            await _refuse(call, writer, 404, f"Response with id '{id}' not found.")
        elif call.query.get("stream") == "true" and not self.streams_again:
            await _refuse(call, writer, 400, f"{id} can no longer be streamed because it is too old.")
        elif call.query.get("stream") == "true":
            at = int(call.query.get("starting_after", "-1")) + 1
            await self._tail(call, writer, one, at, fault, stream=True)
        else:
            await _json(call, writer, one.response)

    async def _cancel(self, call: Call, writer: asyncio.StreamWriter, fault: Fault, id: str) -> None:
        one = self._responses.get(id)
        if one is None or not one.response["background"]:
            await _refuse(call, writer, 400, "Cannot cancel a response that is not in the background.")
            return
        if not one.ended:
            assert one.task is not None
            one.task.cancel()
            one.response["status"] = "cancelled"
            one.ended = True
            one.changed.set()
        await _json(call, writer, one.response)


# --- what the protocol says ------------------------------------------------------------------------------


def turns_of_the_model(body: dict[str, Any]) -> int:
    """How often the model has spoken in the conversation that it is sent."""
    if "messages" in body:
        return sum(message.get("role") == "assistant" for message in body["messages"])
    items = body.get("input", [])
    theirs = [
        item.get("type") in ("function_call", "reasoning") or item.get("role") == "assistant"
        for item in (items if isinstance(items, list) else [])
    ]
    return sum(now and not before for before, now in zip([False, *theirs], theirs, strict=False))


def chat_usage(body: dict[str, Any], reply: Reply) -> dict[str, Any]:
    prompt, completion = 10 * len(body.get("messages", [])), max(1, len(reply.pieces)) + len(reply.tools)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def response_usage(body: dict[str, Any], reply: Reply) -> dict[str, Any]:
    items = body.get("input", [])
    prompt = 10 * (len(items) if isinstance(items, list) else 1)
    completion = max(1, len(reply.pieces)) + len(reply.tools)
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + completion,
    }


def output_events(response_id: str, reply: Reply) -> Iterator[dict[str, Any]]:
    """The events between "in progress" and "completed"."""
    index = 0
    if reply.text:
        item = {"id": f"msg_{response_id}", "type": "message", "role": "assistant"}
        where = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        part = {"type": "output_text", "text": reply.text, "annotations": [], "logprobs": []}
        opened = {**item, "status": "in_progress", "content": []}
        yield {"type": "response.output_item.added", "output_index": 0, "item": opened}
        yield {"type": "response.content_part.added", **where, "part": {**part, "text": ""}}
        for piece in reply.pieces:
            yield {"type": "response.output_text.delta", **where, "delta": piece, "logprobs": []}
        yield {"type": "response.output_text.done", **where, "text": reply.text, "logprobs": []}
        yield {"type": "response.content_part.done", **where, "part": part}
        done = {**item, "status": "completed", "content": [part]}
        yield {"type": "response.output_item.done", "output_index": 0, "item": done}
        index = 1
    for nth, tool in enumerate(reply.tools, index):
        arguments = json.dumps(tool.arguments)
        item = {
            "id": f"fc_{response_id}_{nth}",
            "type": "function_call",
            "call_id": tool.id or f"call_{response_id}_{nth}",
            "name": tool.name,
        }
        where = {"item_id": item["id"], "output_index": nth}
        opened = {**item, "status": "in_progress", "arguments": ""}
        yield {"type": "response.output_item.added", "output_index": nth, "item": opened}
        yield {"type": "response.function_call_arguments.delta", **where, "delta": arguments}
        yield {
            "type": "response.function_call_arguments.done",
            **where,
            "name": tool.name,
            "arguments": arguments,
        }
        done = {**item, "status": "completed", "arguments": arguments}
        yield {"type": "response.output_item.done", "output_index": nth, "item": done}


# --- HTTP ------------------------------------------------------------------------------------------------


async def _read_request(reader: asyncio.StreamReader) -> tuple[str, str, bytes] | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode().split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return method, target, await reader.readexactly(int(headers.get("content-length", "0")))


def _head(status: int, kind: str, more: str) -> bytes:
    return f"HTTP/1.1 {status} OK\r\nContent-Type: {kind}\r\nConnection: close\r\n{more}\r\n".encode()


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    """As one chunk of a chunked body."""
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
    await writer.drain()


async def _event(writer: asyncio.StreamWriter, data: dict[str, Any], name: str | None = None) -> None:
    head = f"event: {name}\n" if name is not None else ""
    await _write(writer, f"{head}data: {json.dumps(data)}\n\n".encode())


async def _begin_stream(call: Call, writer: asyncio.StreamWriter) -> None:
    call.status = 200
    writer.write(_head(200, "text/event-stream", "Transfer-Encoding: chunked\r\n"))
    await writer.drain()


async def _end_stream(writer: asyncio.StreamWriter) -> None:
    writer.write(b"0\r\n\r\n")
    await writer.drain()


async def _json(
    call: Call, writer: asyncio.StreamWriter, data: dict[str, Any], status: int = 200, more: str = ""
) -> None:
    call.status = status
    call.finished = status == 200
    body = json.dumps(data).encode()
    writer.write(_head(status, "application/json", f"Content-Length: {len(body)}\r\n{more}") + body)
    await writer.drain()


async def _refuse(
    call: Call,
    writer: asyncio.StreamWriter,
    status: int,
    message: str,
    retry_after_seconds: float | None = None,
) -> None:
    more = "" if retry_after_seconds is None else f"Retry-After: {retry_after_seconds:g}\r\n"
    error = {"message": message, "type": "scripted", "param": None, "code": None}
    await _json(call, writer, {"error": error}, status, more)
