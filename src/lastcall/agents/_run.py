"""Run: a handle to one run of an agent, the same whether it lives in this process or in a store.

Who calls it: users. What it owns: an id. Where runs live is behind `Runs`, which `_memory` and `_durable` implement.
What can go wrong: the run is not known (any more), it failed, it was cancelled; each is an error of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal, NamedTuple, Protocol, cast

from .._core._state import StopReason
from ..exceptions import BadDeclaration, BadResult, ConversationBusy, RunCancelled, RunFailed
from ..jobs import Event
from ..jobs._codec import dump_plain, load_plain
from ..jobs._settings import shown
from ..jobs._settings import text as check_text
from ..jobs._state import CancelOutcome
from ..streams import Entry, Log, TextView, follow
from ._budget import Budget

ANSWER = "answer"
STEP_NAME_LENGTH = 1000
_READ_AT_ONCE = 1000

_CANCEL_REASONS = (StopReason.USER, StopReason.DISCONNECT)


class RunStatus(StrEnum):
    """Where a run is. `pending`: it has not begun, or was handed over by a worker that stops. `waiting`: for a message,
    or for the turn before it; it holds no place. The last three are final."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing more happens to the run by itself."""
        return self in FINAL


FINAL = frozenset({RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED})


class RunInfo(NamedTuple):
    """A snapshot of one run. Times are seconds since the epoch; `error` has `type`, `message` and `traceback`.

    `result`: of a durable run as plain JSON values. `reason`: why it was cancelled. `attempt`: how often it was
    started, in memory once at most. `turn`: which one of its conversation, from 1.
    """

    id: str
    status: RunStatus
    prompt: Any
    user: str | None
    priority: int
    conversation: str | None
    turn: int | None
    attempt: int
    result: Any
    error: Mapping[str, str] | None
    reason: StopReason | None
    created_at: float
    started_at: float | None
    ended_at: float | None

    def to_json(self) -> dict[str, Any]:
        """As plain values, for JSON; the result must be some."""
        return self._asdict()


OnBusy = Literal["reject", "queue", "interrupt"]


class Order(NamedTuple):
    """What is asked of a queue: one prompt and all about it, checked."""

    prompt: Any
    user: str | None
    priority: int
    budget: Budget
    key: str | None = None
    conversation: str | None = None
    turn: int | None = None


class Runs(Protocol):
    """Where runs live. Every verb of one raises `UnknownRun` for an id that is not known (any more)."""

    async def submit(self, order: Order, on_busy: OnBusy) -> str: ...
    async def again(self, run_id: str) -> str: ...
    async def find(
        self, statuses: Sequence[RunStatus] | None, user: str | None, conversation: str | None, limit: int
    ) -> list[RunInfo]: ...
    async def counts(self) -> dict[RunStatus, int]: ...
    async def info(self, run_id: str) -> RunInfo: ...
    async def wait(self, run_id: str, timeout: float | None) -> RunInfo: ...
    async def result(self, run_id: str, timeout: float | None) -> Any: ...
    async def cancel(self, run_id: str, reason: StopReason) -> CancelOutcome: ...
    async def send(self, run_id: str, name: str, data: Any) -> RunStatus: ...
    def log(self, run_id: str) -> Log: ...


class Run:
    """One prompt given to an agent, by its id. Cheap: every verb asks where the run lives.

    Every verb raises `UnknownRun` if there is no such run (any more).

        run = await queue.submit("Analyse these documents ...")
        print(run.id, await run.status())
        async for event in run.events():
            print(event.type, event.data)
        print(await run.result())
    """

    __slots__ = ("_runs", "id")

    def __init__(self, runs: Runs, run_id: str) -> None:
        self.id = run_id
        self._runs = runs

    def __repr__(self) -> str:
        return f"<Run {self.id}>"

    async def info(self) -> RunInfo:
        """Everything that is known of it."""
        return await self._runs.info(self.id)

    async def status(self) -> RunStatus:
        """Where it is."""
        return (await self._runs.info(self.id)).status

    async def wait(self, timeout: float | None = None) -> RunInfo:
        """Return when the run has ended, however. Raises TimeoutError after `timeout` seconds; the run goes on then."""
        return await self._runs.wait(self.id, timeout)

    async def result(self, timeout: float | None = None) -> Any:
        """What the agent answered. Raises `RunFailed`, `RunCancelled`, and TimeoutError after `timeout` seconds; the
        run goes on then."""
        return await self._runs.result(self.id, timeout)

    async def cancel(self, reason: StopReason = StopReason.USER) -> CancelOutcome:
        """Cancel it. `cancelled`: it had not begun, and never will. `requested`: it runs and was told; `wait()` tells
        when it has ended. `already_ended`: nothing was done.

        `reason`: `user` or `disconnect`; the others end attempts, not runs. Raises `BadDeclaration` for these.
        """
        if reason not in _CANCEL_REASONS:
            raise BadDeclaration(
                f"a run is cancelled by a user or a disconnect, not for the reason {shown(reason)}"
            )
        return await self._runs.cancel(self.id, StopReason(reason))

    async def send(self, name: str, data: Any = None) -> RunStatus:
        """Send it a message, for `turn.wait_for(name)`; it may be sent before the run waits. Answers its status; a
        final one means that the message was not kept.

        Raises `BadDeclaration` for a name that is none, `BadResult` for data that JSON cannot hold.
        """
        plain = load_plain(dump_plain(data, f"the message {check_text('the name of a message', name)!r}"))
        return await self._runs.send(self.id, name, plain)

    def log(self) -> Log:
        """Its events as a log, for what serves one."""
        return self._runs.log(self.id)

    async def events(self, after: int = 0) -> AsyncIterator[Event]:
        """Its events from `after` on, and then what comes, until the run has ended. Each once, in order.

        What the agent writes are events of type `stream.text`. `step.reset` takes back what that step has written,
        because it runs again after a crash; `lastcall.streams.TextView` is the rule.
        Raises `BadCursor`, `EntriesGone`.
        """
        async for entries in follow(self.log(), after):
            for entry in entries:
                yield event_of(entry)

    async def text(self) -> str:
        """What the agent has written until now, also when the run has failed or was cancelled since."""
        view, log, after = TextView(), self.log(), 0
        last = (await log.read(0, 0)).last
        while after < last:
            page = await log.read(after, _READ_AT_ONCE)
            if not page.entries:
                break
            view.apply(page.entries)
            after = page.entries[-1].seq
        return view.text(ANSWER)


def shown_info(info: RunInfo) -> dict[str, Any]:
    """What a reader of a run's log is told first: all but the prompt, which may be large."""
    told = info.to_json()
    del told["prompt"]
    try:
        return cast(dict[str, Any], load_plain(dump_plain(told, "what is known of a run")))
    except BadResult:  # in memory an answer may be anything
        return {**told, "result": shown(info.result)}


def event_of(entry: Entry) -> Event:
    """The entry with its JSON read."""
    return Event(entry.seq, entry.type, load_plain(entry.data), entry.attempt, entry.step, entry.at)


def failed(info_id: str, error: Mapping[str, str] | None) -> RunFailed:
    """The error of a run that has failed, for whoever asks for its result."""
    told = "no error was recorded" if error is None else f"{error.get('type')}: {error.get('message')}"
    return RunFailed(f"run {info_id} failed: {told}", dict(error or {}))


def cancelled(info_id: str, reason: StopReason | None) -> RunCancelled:
    """The error of a run that was cancelled, for whoever asks for its result."""
    why = reason or StopReason.USER
    return RunCancelled(f"run {info_id} was cancelled ({why})", why)


def busy(conversation: str | None, run_id: str) -> ConversationBusy:
    """The error of a prompt that came while another turn of its conversation had not ended."""
    return ConversationBusy(
        f"the conversation {conversation} is busy with run {run_id}; wait for it, or give on_busy='queue' or "
        "'interrupt'",
        run_id,
    )
