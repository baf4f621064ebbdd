"""Conversation: turns that follow each other. A handle; what was said is a stream, each turn is a run.

Who calls it: users, who get one from `queue.conversation(...)`. What it owns: an id. What can go wrong: a turn while
another one has not ended (`on_busy` says what then), a branch at a turn that did not complete.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from ..exceptions import UnknownConversation, UnknownRun
from ..jobs._ids import new_id
from ..streams import Log
from ._budget import Budget
from ._run import FINAL, OnBusy, Order, Run, Runs, RunStatus
from ._transcript import Transcript, history_of

_NOT_ENDED = tuple(status for status in RunStatus if status not in FINAL)

Submit = Callable[..., Awaitable[Run]]


class TurnInfo(NamedTuple):
    """One turn. `answer`: when it has completed. `status` None: the run is not remembered any more, and never
    completed."""

    turn: int
    run_id: str
    prompt: Any
    answer: Any
    status: RunStatus | None


class Conversation:
    """A conversation with the agent of a queue, by its id. Made by `queue.conversation(...)`.

    The agent is given what was said before: the prompts and answers of the turns that have completed. Turns go one
    after the other.

        chat = queue.conversation(user="ann")
        run = await chat.send("Which files mention retries?")
        print(await run.result())
        later = queue.conversation(chat.id)               # in another process as well, where the queue is durable
        print(await later.turns())
    """

    __slots__ = ("_runs", "_submit", "_transcript", "id", "user")

    def __init__(self, id: str, user: str | None, submit: Submit, runs: Runs, transcript: Transcript) -> None:
        self.id = id
        self.user = user
        self._submit = submit
        self._runs = runs
        self._transcript = transcript

    def __repr__(self) -> str:
        return f"<Conversation {self.id}>"

    async def send(
        self, prompt: Any, *, on_busy: OnBusy | None = None, priority: int = 0, budget: Budget | None = None
    ) -> Run:
        """The next turn. Raises as `queue.submit`, `ConversationBusy` among them."""
        return await self._submit(
            prompt, user=self.user, conversation=self.id, on_busy=on_busy, priority=priority, budget=budget
        )

    async def turns(self) -> list[TurnInfo]:
        """All turns in order: those that have begun, and those that wait."""
        said = await self._transcript.read(self.id)
        turns = {
            one.turn: TurnInfo(one.turn, one.run_id, one.prompt, one.answer, await self._status(one.run_id))
            if not one.answered
            else TurnInfo(one.turn, one.run_id, one.prompt, one.answer, RunStatus.COMPLETED)
            for one in said
        }
        for info in await self._runs.find(_NOT_ENDED, None, self.id, 1000):
            turn = info.turn or 0
            turns.setdefault(turn, TurnInfo(turn, info.id, info.prompt, None, info.status))
        return [turns[turn] for turn in sorted(turns)]

    async def _status(self, run_id: str) -> RunStatus | None:
        try:
            return (await self._runs.info(run_id)).status
        except UnknownRun:
            return None

    async def history(self) -> list[dict[str, Any]]:
        """What the agent would be given now: messages with `role` (`user`, `assistant`) and `content`."""
        return history_of(await self._transcript.read(self.id))

    async def resume(self) -> Run | None:
        """The run of the last turn: as it goes on, or, if it has failed or was cancelled, run again. None: there is
        nothing to resume, the last turn has completed or there was none.

        A durable run goes on with the steps that it had completed; in memory the turn is asked again, as a new run.
        """
        turns = await self.turns()
        if not turns or turns[-1].status is RunStatus.COMPLETED:
            return None
        last = turns[-1]
        if last.status is None:
            return await self.send(last.prompt)
        if last.status in FINAL:
            return Run(self._runs, await self._runs.again(last.run_id))
        return Run(self._runs, last.run_id)

    async def branch(self, after: int | None = None) -> Conversation:
        """A new conversation that begins with this one, up to the turn `after` (default: the last that completed).

        Nothing is copied, and this one goes on as it was. Raises `UnknownConversation` for a turn that is not there or
        has not completed.
        """
        said = [one for one in await self._transcript.read(self.id) if one.answered]
        chosen = [one for one in said if after is None or one.turn == after]
        if not chosen:
            what = "no turn that has completed" if after is None else f"no turn {after} that has completed"
            raise UnknownConversation(
                f"the conversation {self.id} has {what}; branch at one of {[s.turn for s in said]}"
            )
        other = new_id()
        await self._transcript.branch(self.id, other, chosen[-1])
        return Conversation(other, self.user, self._submit, self._runs, self._transcript)

    def log(self) -> Log:
        """What is said, as a log to follow; there is none (`UnknownStream`) before the first turn has begun."""
        return self._transcript.stream(self.id)


async def next_turn(transcript: Transcript, order: Order) -> Order:
    """The order with the number that its turn has at least."""
    assert order.conversation is not None
    said = await transcript.read(order.conversation)
    return order._replace(turn=said[-1].turn + 1 if said else 1)
