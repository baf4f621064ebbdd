"""OutStream: what `ctx.stream(name)` gives, text and data that readers see as they are written.

Who calls it: a job's function, or a step of it. What it owns: nothing but a name; the events lie in `_outgoing`. What
can go wrong: the code runs again after a crash. Inside a step, `step.reset` has then told the readers, or the step
continues with `text_so_far`. Outside of steps the stream does this itself, with `stream.reset`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

from ..exceptions import BadResult, StreamClosed
from ._attempt import Attempt, Released
from ._codec import dump_plain
from ._outgoing import Outgoing, emit
from ._rows import NewEvent
from ._state import StepPolicy
from ._stepping import text_of
from ._told import told_before, written_to_stream


class OutStream:
    """A stream that is being written. Use it as `async with`; leaving the block stores what is on its way.

    `name`: which stream of the job. `text_so_far`: what it has said, and, where it continues, what an earlier attempt
    had said before.

        async with ctx.stream("answer") as out:
            async for token in llm.astream(prompt):
                await out.write(token)
    """

    __slots__ = ("_attempt", "_begin", "_goes_on", "_is_open", "_outgoing", "_pieces", "_step", "name")

    def __init__(
        self,
        attempt: Attempt,
        outgoing: Outgoing,
        name: str,
        step: str | None,
        begin: Callable[[], Awaitable[str]],
        *,
        goes_on: bool,
    ) -> None:
        self.name = name
        self._attempt = attempt
        self._outgoing = outgoing
        self._step = step
        self._begin = begin
        self._goes_on = goes_on
        self._pieces: list[str] = []
        self._is_open = False

    @property
    def text_so_far(self) -> str:
        """All text of this stream until now."""
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    async def write(self, text: str) -> None:
        """Append text. It is stored, and seen, at once or within 25 ms, together with what is written meanwhile.

        Returns before it is stored, unless more than 256 KiB are waiting. Raises `BadResult` for what is no text,
        `PayloadTooLarge`, `StreamClosed` outside of the block.
        """
        self._require_open()
        size = _size_of(text, self.name)
        if size > 1024:  # what a payload may be is never less
            self._attempt.crew.client.check_size(text, f"text of the stream {self.name!r}")
        if not text:
            return
        self._pieces.append(text)
        await self._outgoing.put_text(self.name, self._step, text, size)
        await self._leave_if_asked()

    async def send(self, data: Any) -> None:
        """Append anything JSON can hold, in its place among the text. As `write`."""
        self._require_open()
        what = f"data of the stream {self.name!r}"
        told = self._attempt.crew.client.check_size(
            dump_plain({"stream": self.name, "data": data}, what), what
        )
        await self._outgoing.put(NewEvent("stream.data", told, self._step))
        await self._leave_if_asked()

    async def flush(self) -> None:
        """Return when everything written so far is stored."""
        self._require_open()
        await self._attempt.finish_write(
            self._outgoing.flush, f"the stream {self.name!r} of {self._attempt!r}"
        )
        await self._park_if_lost()

    async def __aenter__(self) -> OutStream:
        if self._is_open:
            raise StreamClosed(f"the stream {self.name!r} is open already; open it once, and pass it on")
        self._pieces = [await self._begin()]
        self._is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Store what is on its way, also when the block was cut off: a step that continues needs it."""
        self._is_open = False
        if self._attempt.ended or self._attempt.lost:
            return
        outgoing, attempt = self._outgoing, self._attempt
        what = f"the end of the stream {self.name!r} of {attempt!r}"
        if kind is not None:
            await attempt.finish_write(outgoing.flush, what)
            return
        end = NewEvent("stream.end", dump_plain({"stream": self.name}, what), self._step)
        await attempt.finish_write(lambda: outgoing.emit(end), what)
        await self._park_if_lost()

    def _require_open(self) -> None:
        if not self._is_open:
            raise StreamClosed(
                f"the stream {self.name!r} of {self._attempt!r} is not open; write inside `async with ctx.stream(...)`"
            )
        self._attempt.enter()

    async def _leave_if_asked(self) -> None:
        """What goes on where it stood loses nothing by being handed over in the middle, and its readers wait less."""
        attempt = self._attempt
        if self._goes_on and attempt.told_to_stop and not attempt.is_cancelled:
            if self._step is None:
                await attempt.checkpoint()
            else:
                with Released(attempt):  # the step around it holds the attempt
                    await attempt.checkpoint()
        await self._park_if_lost()

    async def _park_if_lost(self) -> None:
        if self._attempt.lost:
            await self._attempt.park()


async def reopened(attempt: Attempt, name: str, policy: StepPolicy) -> str:
    """What a stream outside of steps had said in earlier attempts: gone on with, or taken back."""
    if attempt.claimed.attempt == 1 or not (await told_before(attempt)).takes_back_stream(name):
        return ""
    if policy is StepPolicy.CONTINUE and (rows := await written_to_stream(attempt, name)) is not None:
        return text_of(rows, name)
    await emit(attempt, NewEvent("stream.reset", dump_plain({"stream": name}, "an event")))
    return ""


def _size_of(text: str, name: str) -> int:
    """Its length in bytes. Raises `BadResult` for what is no text that could be stored."""
    try:
        return len(text.encode())
    except (AttributeError, UnicodeEncodeError) as error:
        raise BadResult(
            f"the stream {name!r} takes text, str and Unicode, not {type(text).__name__}; `send` takes other data"
        ) from error
