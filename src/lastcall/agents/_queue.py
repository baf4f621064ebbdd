"""AgentQueue: prompts go in, runs of one agent come out; in memory on a `TaskManager`, or durable as jobs.

Who calls it: users. What it owns: the adapter of its agent, and where its runs live (`_memory` or `_durable`), which it
treats alike. What can go wrong is checked here before anything is queued: the agent, the options, the prompt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from .._core._clock import check_count, check_seconds
from .._core._manager import TaskManager
from .._core._plan import ShutdownPlan
from .._core._report import ShutdownReport
from .._core._roster import Roster
from .._core._scope import current_scope
from .._core._state import ManagerState
from ..exceptions import BadDeclaration, NotOpen
from ..jobs import Context, Jobs, Worker
from ..jobs._codec import dump_plain, load_plain
from ..jobs._ids import new_id
from ..jobs._settings import text as check_text
from ..streams import Streams
from ._adapters import adapter_for
from ._budget import Budget, out_of_time
from ._conversation import Conversation, next_turn
from ._durable import JobRuns
from ._job_turn import JobTurn
from ._limits import Limits, check_priority
from ._live import LiveRun
from ._memory import MemoryRuns
from ._memory_turn import MemoryTurn
from ._run import OnBusy, Order, Run, RunInfo, Runs, RunStatus
from ._transcript import Transcript, history_of

_ON_BUSY = ("reject", "queue", "interrupt")

# What ended runs of a queue in memory may hold all together, and the events of one run.
_KEPT_BYTES = 64 << 20
_LOG_BYTES = 4 << 20


class AgentQueue:
    """A queue of prompts for one agent.

    `agent`: an async function of the prompt, an async generator, an object with `.run(prompt)`, a runnable of LangChain
    or LangGraph, an agent of pydantic-ai or of the OpenAI Agents SDK. `manager`: whose tasks the runs are, and by whose
    plan they drain; default: the one in whose block or app the queue is opened, or else one of its own.
    `jobs`: then each run is a durable job of the task `name` ("agent"), in the job queue of that name.

    `concurrency` (4): so many runs at once, in memory of this process, durable over all workers;
    `concurrency_per_user`: of one user. `max_pending`, `max_pending_per_user`: so many may wait; more are refused with
    `QueueFull`. `budget`: of each run that is given none of its own. `on_busy`: what becomes of a prompt while another
    turn of its conversation has not ended: `"reject"` (default), `"queue"` behind it, `"interrupt"` (cancel) it.
    In memory `keep_ended` (1000) ended runs stay known, for `keep_ended_seconds` (3600). With jobs: `version` and
    `retries`, as of a task.

    Used as a block it runs what is submitted, and leaving it shuts down. With jobs that is a worker for this queue
    alone; without the block any worker of these jobs runs them.

    Raises `UnknownAgent`, and ValueError or `BadDeclaration` for options that make no sense.

        async with AgentQueue(agent, concurrency=4) as queue:
            run = await queue.submit("Analyse these documents ...", user="ann")
            print(await run.result())
    """

    def __init__(
        self,
        agent: Any,
        *,
        manager: TaskManager | None = None,
        jobs: Jobs | None = None,
        concurrency: int = 4,
        concurrency_per_user: int | None = None,
        max_pending: int | None = None,
        max_pending_per_user: int | None = None,
        budget: Budget | None = None,
        on_busy: OnBusy = "reject",
        name: str = "agent",
        keep_ended: int = 1000,
        keep_ended_seconds: float = 3600.0,
        version: str = "",
        retries: int = 0,
    ) -> None:
        self.name = check_text("AgentQueue(name)", name, longest=100)
        self.limits = Limits(concurrency, concurrency_per_user, max_pending, max_pending_per_user).checked()
        self._budget = _check_budget(budget)
        self._on_busy = _check_on_busy(on_busy)
        self._adapter = adapter_for(agent)
        self._given_manager = manager
        self._own_manager: TaskManager | None = None
        self._jobs = jobs
        self._worker: Worker | None = None
        self._memory: MemoryRuns | None = None
        self._runs: Runs
        self.report: ShutdownReport | None = None
        """The report of the last shutdown in memory; None before its end."""
        if jobs is None:
            if version or retries:
                raise BadDeclaration("AgentQueue(version, retries) are of durable queues; give jobs=, too")
            check_count("AgentQueue(keep_ended)", keep_ended, 0)
            check_seconds("AgentQueue(keep_ended_seconds)", keep_ended_seconds)
            streams = Streams()
            self._transcript = Transcript(name, lambda: streams, max(1, int(keep_ended_seconds)))
            self._runs = self._memory = MemoryRuns(
                name,
                self.limits,
                self._run_in_memory,
                keep_ended=keep_ended,
                keep_ended_seconds=keep_ended_seconds,
                keep_bytes=_KEPT_BYTES,
                log_bytes=_LOG_BYTES,
            )
        else:
            self._transcript = Transcript(name, lambda: jobs.streams, None)
            returns = getattr(self._adapter, "returns", Any)
            self._runs = JobRuns(
                name, self.limits, self._run_as_job, jobs, version=version, retries=retries, returns=returns
            )

    def __repr__(self) -> str:
        return f"<AgentQueue {self.name!r} {'in memory' if self._jobs is None else f'on {self._jobs!r}'}>"

    # --- open and close --------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        manager = self._given_manager or _ambient_manager()
        if self._jobs is not None:
            if self._worker is not None:
                raise RuntimeError(f"{self!r} is open already")
            worker = self._jobs.worker(
                concurrency=self.limits.concurrency, queues=[self.name], manager=manager
            )
            await worker.__aenter__()
            self._worker = worker
            return self
        if manager is None:
            manager = self._own_manager = TaskManager(name=self.name)
            await manager.__aenter__()
        self._bind(manager)
        return self

    async def __aexit__(
        self, et: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.__aexit__(et, exc, tb)
            return
        own, self._own_manager = self._own_manager, None
        if own is not None:
            await own.__aexit__(et, exc, tb)
            self.report = own.report
        else:
            await self._stop(None)

    def _bind(self, manager: TaskManager) -> MemoryRuns:
        assert self._memory is not None
        if not self._memory.is_bound:
            self._memory.bind(manager)
        return self._memory

    async def shutdown(self, timeout: float | None = None) -> ShutdownReport | None:
        """Stop: new prompts are refused, those that wait are cancelled with reason `shutdown`, those that run are told,
        may finish for `timeout` seconds (default: the manager's plan) and are cancelled then. Called again, it does no
        harm.

        With jobs the worker of this queue's block stops, and nothing is lost: runs that wait stay in the store, those
        that run are handed over. Raises `InvalidPlan` for an impossible timeout.
        """
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.__aexit__(None, None, None)
            return None
        return await self._stop(timeout)

    async def _stop(self, timeout: float | None) -> ShutdownReport | None:
        memory = self._memory
        if memory is None or memory.manager is None:
            return None
        plan = memory.manager.plan
        if timeout is not None:
            plan = ShutdownPlan(
                drain=check_seconds("shutdown(timeout)", timeout), cancel=plan.cancel, close=0
            )
        self.report = await memory.shutdown(plan) or self.report
        return self.report

    # --- submitting ------------------------------------------------------------------------------------

    async def submit(
        self,
        prompt: Any,
        *,
        user: str | None = None,
        priority: int = 0,
        key: str | None = None,
        conversation: str | None = None,
        on_busy: OnBusy | None = None,
        budget: Budget | None = None,
    ) -> Run:
        """Queue a prompt, and return its run's handle; with jobs after the commit.

        `user`: whose it is; users take turns, and limits are of each. `priority` from -9 to 9, higher is first.
        `key`: submitted again with the same key, the same run is returned; asked for something else, it is refused.
        `conversation`: the id of one, see `conversation()`. `on_busy`, `budget`: in place of the queue's.

        Raises `QueueFull`, `ConversationBusy`, `KeyConflict`, `ShuttingDown`, `NotOpen`, `BadResult` or `BadArguments`
        for a prompt that cannot be stored where it has to be, ValueError for impossible options. Nothing was queued
        then.
        """
        order = Order(
            prompt=prompt,
            user=None if user is None else check_text("submit(user)", user),
            priority=check_priority(priority),
            budget=self._budget if budget is None else _check_budget(budget),
            key=None if key is None else check_text("submit(key)", key),
            conversation=None if conversation is None else _check_conversation(conversation),
        )
        on_busy = self._on_busy if on_busy is None else _check_on_busy(on_busy)
        if order.conversation is not None:
            if key is not None:
                raise BadDeclaration(
                    "a turn of a conversation has no key; its number in the conversation is its key"
                )
            dump_plain(prompt, "the prompt")
            order = await next_turn(self._transcript, order)
        if self._memory is not None:
            self._require_bound()
        return Run(self._runs, await self._runs.submit(order, on_busy))

    def _require_bound(self) -> None:
        assert self._memory is not None
        if self._memory.is_bound:
            return
        manager = self._given_manager or _ambient_manager()
        if manager is not None and manager.state is not ManagerState.CLOSED:
            self._bind(manager)
        elif self._memory.manager is None:
            raise NotOpen(
                f"{self!r} is not open; use it inside `async with queue:`, or inside a manager's block"
            )

    # --- looking ---------------------------------------------------------------------------------------

    def run(self, run_id: str) -> Run:
        """A handle by id; nothing is asked yet, so an id that does not exist shows at the first verb."""
        return Run(self._runs, run_id)

    async def runs(
        self,
        *,
        status: RunStatus | str | Iterable[RunStatus | str] | None = None,
        user: str | None = None,
        conversation: str | None = None,
        limit: int = 50,
    ) -> list[RunInfo]:
        """The runs for which all of this holds, newest first.

        Raises ValueError for a status that does not exist, and for an impossible limit.
        """
        check_count("runs(limit)", limit, 1)
        statuses = None
        if status is not None:
            statuses = [RunStatus(one) for one in ([status] if isinstance(status, str) else status)]
        found = await self._runs.find(
            statuses, None if conversation is not None else user, conversation, limit
        )
        return [info for info in found if user is None or info.user == user]

    async def stats(self) -> dict[RunStatus, int]:
        """How many runs are known, by status."""
        return await self._runs.counts()

    def conversation(self, id: str | None = None, *, user: str | None = None) -> Conversation:
        """A conversation: a new one, or the one of this id. Nothing is asked or written yet."""
        id = new_id() if id is None else _check_conversation(id)
        user = None if user is None else check_text("conversation(user)", user)
        return Conversation(id, user, self.submit, self._runs, self._transcript)

    # --- running ---------------------------------------------------------------------------------------

    async def _run_in_memory(self, live: LiveRun) -> Any:
        assert self._memory is not None
        return await self._perform(MemoryTurn(self._memory, live), live.order, live.order.budget.seconds)

    async def _run_as_job(self, ctx: Context, order: Order) -> Any:
        async with JobTurn(ctx, order.budget) as turn:
            await turn.recall()
            return await self._perform(turn, order, await turn.seconds_left())

    async def _perform(self, turn: MemoryTurn | JobTurn, order: Order, seconds: float | None) -> Any:
        """Ask the agent, with what was said before, within the budget; and write down what it answered."""
        history: list[dict[str, Any]] = []
        conversation, number = order.conversation, order.turn or 0
        if conversation is not None:
            said = await turn.keep(lambda: self._transcript.read(conversation))
            for one in said:
                if one.run_id == turn.id and one.answered:
                    return one.answer  # an earlier attempt had come so far
            history = history_of(said, number)
            await turn.keep(lambda: self._transcript.prompt(conversation, number, turn.id, order.prompt))
        answer = await self._ask(turn, order, history, seconds)
        if conversation is not None:
            plain = load_plain(dump_plain(answer, "the answer"))
            await turn.keep(lambda: self._transcript.answer(conversation, number, turn.id, plain))
        return answer

    async def _ask(
        self, turn: MemoryTurn | JobTurn, order: Order, history: list[dict[str, Any]], seconds: float | None
    ) -> Any:
        if seconds is not None and seconds <= 0:
            raise out_of_time(order.budget)
        timer = asyncio.timeout(seconds)
        turn.timer = timer
        try:
            async with timer:
                return await self._adapter.run(turn, order.prompt, history)
        except TimeoutError:
            if timer.expired():
                raise out_of_time(order.budget) from None
            raise
        finally:
            turn.timer = None


def _ambient_manager() -> TaskManager | None:
    scope = current_scope.get()
    if scope is None or not isinstance(scope.roster, Roster):
        return None
    owner = scope.roster.owner
    return owner if isinstance(owner, TaskManager) else None


def _check_budget(budget: Budget | None) -> Budget:
    if budget is None:
        return Budget()
    if not isinstance(budget, Budget):
        raise BadDeclaration(f"a budget is a Budget(seconds=, tokens=, tool_calls=), not {budget!r}")
    return budget


def _check_on_busy(on_busy: OnBusy) -> OnBusy:
    if on_busy not in _ON_BUSY:
        raise BadDeclaration(f"on_busy is one of {', '.join(_ON_BUSY)}, not {on_busy!r}")
    return on_busy


def _check_conversation(conversation: str) -> str:
    return check_text("the id of a conversation", conversation, longest=100)
