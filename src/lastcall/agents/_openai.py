"""OpenAI's background responses: a stream that is taken up again instead of being bought twice. The only file that
imports openai.

Who calls it: `_adapters`, for a `BackgroundResponses`. The provider works on a background response whether somebody
listens or not, and numbers its events. So the response's id, and how far it was read, are written into the run's log;
a run that is started again asks for what came after.

What can go wrong: the process dies between the request and the commit of the id, some milliseconds: then the response
is bought again, for nobody knows that it exists. The provider refuses to stream a response that is too old: then it is
asked for until it has ended. It does not keep it any more: then it is bought again, and the log says so (`step.reset`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

from openai import APIConnectionError, APIError, AsyncOpenAI, AsyncStream, BadRequestError, NotFoundError
from openai.types.responses import Response, ResponseStreamEvent

from .._core._state import StopReason
from ..exceptions import AgentError, BadArguments, BadDeclaration, NotInJob
from ..jobs import StepPolicy, current_step
from ._so_far import emitted_so_far, text_in
from ._turn import AgentAdapter, Turn

logger = logging.getLogger("lastcall.agents")

_FINAL = ("completed", "failed", "incomplete", "cancelled")

# The provider's event under which the place is written down.
_PLACE = "openai.response"

# So many pieces of text are read between two places that are written down. What lies between is read again, and free.
_PIECES_BETWEEN_PLACES = 50

# A connection that breaks is taken up again: after these times, and after the last of them no more.
_RECONNECT_SECONDS = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0, 5.0, 5.0)

_POLL_SECONDS = 2.0

# How long a cancelled run waits for the provider's word that it has stopped.
_CANCEL_SECONDS = 5.0

# Why an attempt at a job is cancelled that nobody goes on with, or only with a new response. One that is handed over in
# the middle of its stream is cancelled without a reason.
_FOR_GOOD = (StopReason.USER, StopReason.DISCONNECT, StopReason.TIMEOUT)


class BackgroundResponses:
    """An agent that is one model of OpenAI: it answers with a background response.

    `options` are those of `client.responses.create`: `instructions`, hosted `tools`, `reasoning`, ... A response with
    calls of your own functions is an error: that takes an agent (pydantic-ai, the Agents SDK).

        queue = AgentQueue(BackgroundResponses(AsyncOpenAI(), model="gpt-6-sol"), jobs=jobs)

    Raises `BadDeclaration` for options that are the adapter's own.
    """

    def __init__(self, client: AsyncOpenAI, *, model: str, **options: Any) -> None:
        own = {"background", "stream", "input", "starting_after"} & options.keys()
        if own or options.get("store") is False:
            raise BadDeclaration(
                f"BackgroundResponses sets {', '.join(sorted(own)) or 'store'} itself: a response can be taken up "
                "again only if it is stored, works in the background, and is streamed"
            )
        self.client = client
        self._options = {"model": model, **options}

    async def run(self, turn: Turn, prompt: Any, history: Sequence[Any]) -> str:
        """The text of the answer. Raises openai's errors, and `AgentError` for a response that has failed."""
        request = {**self._options, "input": input_of(prompt, history)}

        async def respond() -> Any:
            return await _Reading(self.client, turn, request).to_end()

        answer = await turn.step(respond, name="response", policy=StepPolicy.CONTINUE)
        turn.spend(tokens=answer["tokens"])
        text: str = answer["text"]
        return text


def adapt(agent: Any) -> AgentAdapter | None:
    """An adapter, if this is an agent of this module."""
    return agent if isinstance(agent, BackgroundResponses) else None


def input_of(prompt: Any, history: Sequence[Any]) -> list[Any]:
    """The conversation as OpenAI takes it. Raises `BadArguments` for what is no text, mapping or list of those."""
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    items = [*history, *([asked] if isinstance(asked, Mapping) else asked)]
    for item in items:
        if not isinstance(item, Mapping):
            raise BadArguments(f"a conversation with OpenAI has mappings with role and content, not {item!r}")
    return items


class _Place(NamedTuple):
    """How far a response was read: its last event, and the characters of text up to it."""

    response_id: str
    sequence_number: int
    characters: int


class _Gone(Exception):
    """The provider does not have the response any more."""


class _Reading:
    """The reading of one response, from wherever an earlier attempt has left it."""

    def __init__(self, client: AsyncOpenAI, turn: Turn, request: Mapping[str, Any]) -> None:
        self._client = client
        self._turn = turn
        self._request = request
        self._place: _Place | None = None
        self._written = 0
        self._pieces = 0

    async def to_end(self) -> dict[str, Any]:
        """Its text and its tokens, when it has ended."""
        self._place, self._written = found_in(emitted_so_far())
        try:
            if self._place is not None:
                try:
                    return await self._ended(await self._read_again())
                except _Gone as gone:
                    logger.warning("run %s buys a response again: %s", self._turn.id, gone)
                    await self._forget()
            return await self._ended(await self._read())
        except asyncio.CancelledError:
            await self._stop_paying()
            raise

    async def _read_again(self) -> Response:
        """What an earlier attempt has begun to read. Raises `_Gone`."""
        try:
            response = await self._read()
        except NotFoundError as error:
            raise _Gone(f"the provider does not keep it ({error})") from error
        if response.status in ("failed", "cancelled"):
            # That attempt may have cancelled it, when its time was over; or failed of its failure, and this one is
            # the next try.
            raise _Gone(f"response {response.id} is {response.status}")
        return response

    async def _read(self) -> Response:
        failures = 0
        while True:
            before = self._place
            try:
                response = await self._read_stream() or await self._look()
            except APIConnectionError:
                # Before the first place nobody knows whether it was bought; the job's retries decide.
                if self._place is None or failures >= len(_RECONNECT_SECONDS):
                    raise
                response = None
            except BadRequestError:
                if before is None:
                    raise
                response = await self._poll()  # too old to be streamed
            if response is not None:
                return response
            failures = 0 if self._place != before else failures + 1
            await asyncio.sleep(_RECONNECT_SECONDS[min(failures, len(_RECONNECT_SECONDS) - 1)])

    async def _look(self) -> Response | None:
        """The response, if it has ended though its stream did not say so."""
        if self._place is None:
            raise AgentError("OpenAI ended a stream before it had said which response it is")
        response = await self._client.responses.retrieve(self._place.response_id)
        return response if response.status in _FINAL else None

    async def _poll(self) -> Response:
        while True:
            response = await self._look()
            if response is not None:
                return response
            await asyncio.sleep(_POLL_SECONDS)

    async def _open(self) -> AsyncStream[ResponseStreamEvent]:
        if self._place is None:
            stream: AsyncStream[ResponseStreamEvent] = await self._client.responses.create(
                **self._request, background=True, stream=True
            )
            return stream
        return await self._client.responses.retrieve(
            self._place.response_id, stream=True, starting_after=self._place.sequence_number
        )

    async def _read_stream(self) -> Response | None:
        """The response, if the stream tells its end."""
        characters, ended = 0 if self._place is None else self._place.characters, None
        async with _closing(await self._open()) as stream:
            async for event in stream:
                if event.type == "response.output_text.delta":
                    characters += len(event.delta)
                    await self._write(event.delta, characters)
                    self._pieces += 1
                elif event.type in ("response.completed", "response.failed", "response.incomplete"):
                    ended = event.response
                elif event.type == "error":
                    raise APIError(event.message, stream.response.request, body=event.to_dict())
                if ended is not None:
                    continue
                if self._place is not None:
                    response_id = self._place.response_id
                elif event.type in ("response.created", "response.queued", "response.in_progress"):
                    response_id = event.response.id
                else:
                    continue
                # The first place must be there before anything else happens: until then it can be bought twice.
                tell = self._place is None or self._pieces >= _PIECES_BETWEEN_PLACES
                self._place = _Place(response_id, event.sequence_number, characters)
                if tell:
                    self._pieces = 0
                    await self._turn.emit(_PLACE, self._place._asdict())
        return ended

    async def _write(self, delta: str, characters: int) -> None:
        """A piece of text that ends at so many characters; an earlier attempt may have written it, or a part of it."""
        new = characters - self._written
        if new > 0:
            self._written = characters
            await self._turn.write(delta[-new:])

    async def _ended(self, response: Response) -> dict[str, Any]:
        if response.status in ("failed", "cancelled"):
            why = response.status if response.error is None else response.error.message
            raise AgentError(f"response {response.id} of {response.model} has not been completed: {why}")
        if called := [item.name for item in response.output if item.type == "function_call"]:
            raise AgentError(
                f"response {response.id} calls functions, which nobody here can carry out: {called}"
            )
        text = response.output_text
        if len(text) > self._written:
            await self._turn.write(text[self._written :])  # it was not streamed to its end
        return {
            "id": response.id,
            "status": response.status,
            "text": text,
            "tokens": response.usage.total_tokens if response.usage is not None else 0,
        }

    async def _forget(self) -> None:
        """What was shown of the lost response is taken back."""
        with suppress(NotInJob):
            await self._turn.emit("step.reset", {"step": current_step().key})
        self._place, self._written, self._pieces = None, 0, 0

    async def _stop_paying(self) -> None:
        """Cancelled for good: then nobody takes the response up again, and the provider need not go on."""
        context = self._turn.context
        if self._place is None or (context is not None and context.cancel_reason not in _FOR_GOOD):
            return
        try:
            async with asyncio.timeout(_CANCEL_SECONDS):
                await self._client.responses.cancel(self._place.response_id)
        except (APIError, TimeoutError) as error:
            logger.warning("response %s could not be cancelled: %s", self._place.response_id, error)


@asynccontextmanager
async def _closing(
    stream: AsyncStream[ResponseStreamEvent],
) -> AsyncIterator[AsyncStream[ResponseStreamEvent]]:
    """Close the connection, whatever happens, and what openai reads it with: generators in generators, which nobody
    closes. Read on, they end at once, for the connection is closed; left alone they complain when collected."""
    try:
        yield stream
    finally:
        await stream.close()
        with suppress(Exception):
            async for _ in stream:
                pass


def found_in(emitted: Sequence[Any]) -> tuple[_Place | None, int]:
    """Where to go on, and how many characters of text the log has. Text and places may have been written in another
    order than they came in: what counts is the text, so an earlier place is taken rather than a later one."""
    written = len(text_in(emitted))
    places = [
        _Place(data["response_id"], data["sequence_number"], data["characters"])
        for data in emitted
        if isinstance(data, Mapping) and data.keys() == set(_Place._fields)
    ]
    known = [place for place in places if place.characters <= written]
    return (max(known, key=lambda place: place.sequence_number) if known else None), written
