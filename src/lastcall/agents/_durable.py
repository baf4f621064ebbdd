"""JobRuns: runs that are durable jobs of one declared task; they survive the process, and any worker may have them.

Theory of operation. A run's place in the line is its job's priority: the priority it was submitted with, and below
that its round (`_limits`), found by looking at what runs and what this user has in the store. So no dispatcher is
needed that could die, and the order holds over all processes. It is exact for what one process submits; two that submit
for the same user in the same moment may give out one round twice.

A turn of a conversation is a job whose key has its number, so that two that come at once cannot both be the next one.
One that begins too early waits, as a job does, for the turns before it, and holds no worker meanwhile.

Who calls it: `AgentQueue` and `Run`. What it owns: the declared task. What can go wrong is told as errors of agents.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Final

from .._core._state import StopReason
from ..exceptions import BudgetExceeded, JobCancelled, JobFailed, KeyConflict, UnknownJob, UnknownRun
from ..jobs import Context, Job, JobInfo, Jobs, JobStatus
from ..jobs._attempt import persist
from ..jobs._ids import new_id
from ..jobs._state import CancelOutcome
from ..streams import Log, LogPage
from ._budget import Budget
from ._limits import HIGHEST_PRIORITY, Limits, round_of_next
from ._run import OnBusy, Order, RunInfo, RunStatus, busy, cancelled, failed, shown_info

Work = Callable[[Context, Order], Awaitable[Any]]

_STATUS: Final = {
    JobStatus.SCHEDULED: RunStatus.PENDING,
    JobStatus.QUEUED: RunStatus.PENDING,
    JobStatus.RUNNING: RunStatus.RUNNING,
    JobStatus.WAITING: RunStatus.WAITING,
    JobStatus.COMPLETED: RunStatus.COMPLETED,
    JobStatus.FAILED: RunStatus.FAILED,
    JobStatus.CANCELLED: RunStatus.CANCELLED,
}
_BEGUN = (JobStatus.RUNNING, JobStatus.WAITING)
_PENDING = (JobStatus.SCHEDULED, JobStatus.QUEUED)

# Rounds below one priority. A queue that has not been empty for so many rounds falls back to first come, first served.
_ROUNDS = 50_000_000

# How many pending runs are looked at where nothing runs: enough to see which round is next.
_LOOKED_AT = 200

# How many others may take the next turn of a conversation before we give up; each of them did get one.
_TRIES = 100


class JobRuns:
    def __init__(
        self, name: str, limits: Limits, work: Work, jobs: Jobs, *, version: str, retries: int, returns: Any
    ) -> None:
        self._name = name
        self._limits = limits
        self._work = work
        self._jobs = jobs
        # Submissions of one user look and write one after the other; those of different users side by side.
        self._locks: weakref.WeakValueDictionary[tuple[str, str], asyncio.Lock] = (
            weakref.WeakValueDictionary()
        )

        async def run(ctx: Context, prompt: Any, about: dict[str, Any]) -> Any:
            await self._wait_for_turn(ctx, about)
            return await self._work(ctx, _order_of(prompt, about))

        run.__annotations__["return"] = returns
        self._task = jobs.task(
            name=name,
            version=version,
            queue=name,
            retries=retries,
            give_up_on=BudgetExceeded,  # tried again, it would buy the same once more
            concurrency=limits.concurrency,
            concurrency_key=None if limits.concurrency_per_user is None else _limit_key,
            concurrency_per_key=limits.concurrency_per_user or 1,
        )(run)

    # --- submitting ------------------------------------------------------------------------------------

    async def submit(self, order: Order, on_busy: OnBusy) -> str:
        """Write it down; its id. Raises `QueueFull`, `ConversationBusy`, `KeyConflict`, `BadArguments`,
        `PayloadTooLarge`, `EngineUnavailable`."""
        lane = ("conversation", order.conversation) if order.conversation else ("user", order.user or "")
        lock = self._locks.setdefault(lane, asyncio.Lock())
        async with lock:
            if order.conversation is not None:
                return await self._submit_turn(order, on_busy)
            return (await self._submit(order, order.key, order.key or new_id())).id

    async def _submit_turn(self, order: Order, on_busy: OnBusy) -> str:
        assert order.conversation is not None
        nonce, earlier = new_id(), list[JobInfo]()
        for _ in range(_TRIES):
            label = ("conversation", order.conversation)
            newest = await self._jobs.find(task=self._name, label=label, limit=1)
            last = newest[0].args["about"]["turn"] if newest else 0
            earlier = await self._not_ended(order.conversation) if newest else []
            if earlier and on_busy == "reject":
                raise busy(order.conversation, earlier[0].id)
            order = order._replace(turn=max(order.turn or 1, last + 1))
            try:
                job = await self._submit(order, f"{order.conversation} #{order.turn}", nonce)
            except KeyConflict:
                continue  # another process was faster; the next turn is ours
            if on_busy == "interrupt":
                for info in earlier:
                    await self._jobs.job(info.id).cancel()
            return job.id
        raise busy(order.conversation, earlier[-1].id if earlier else "of another process")

    async def _submit(self, order: Order, key: str | None, nonce: str) -> Job[Any]:
        await self._check_room(order)
        labels = {"user": order.user or "", "lane": _lane(order)}
        if order.conversation is not None:
            labels["conversation"] = order.conversation
        priority = (order.priority + HIGHEST_PRIORITY + 1) * _ROUNDS - min(
            await self._round(order), _ROUNDS - 1
        )
        task = self._task.options(key=key, priority=priority, labels=labels)
        job: Job[Any] = await task.submit(order.prompt, _about(order, nonce))
        return job

    async def _round(self, order: Order) -> int:
        """Its place in the line. All that counts is of the same priority."""
        running = await self._jobs.find(task=self._name, status="running", limit=1000)
        served = [
            round for info in running for priority, round in (_place(info),) if priority == order.priority
        ]
        mine = await self._jobs.find(
            task=self._name, status=(*_PENDING, *_BEGUN), label=("lane", _lane(order)), limit=1
        )
        pending: Sequence[int] = ()
        if not served:
            waiting = await self._jobs.find(task=self._name, status=_PENDING, limit=_LOOKED_AT)
            pending = [
                round for info in waiting for priority, round in (_place(info),) if priority == order.priority
            ]
        return round_of_next(served, pending, [_place(info)[1] for info in mine])

    async def _check_room(self, order: Order) -> None:
        """Not counted is what could begin at once, as far as one can know what the workers do."""
        limits = self._limits
        if limits.max_pending is None and (order.user is None or limits.max_pending_per_user is None):
            return
        most = max(limits.max_pending or 0, limits.max_pending_per_user or 0) + 1
        running = await self._jobs.find(task=self._name, status="running", limit=limits.concurrency)
        pending = await self._jobs.find(task=self._name, status=_PENDING, limit=most)
        per_user = limits.concurrency_per_user
        of_user = sum(info.labels.get("user") == order.user for info in running)
        free = limits.concurrency - len(running) - len(pending)
        if free > 0 and (order.user is None or per_user is None or of_user < per_user):
            return
        mine = [info for info in pending if info.labels.get("user") == order.user]
        if order.user is not None and len(pending) == most:
            label = ("user", order.user)
            mine = await self._jobs.find(task=self._name, status=_PENDING, label=label, limit=most)
        limits.check_room(order.user, len(pending), len(mine))

    # --- in the job ------------------------------------------------------------------------------------

    async def _wait_for_turn(self, ctx: Context, about: dict[str, Any]) -> None:
        """The turns of a conversation go one after the other, whatever becomes of each."""
        conversation, turn = about.get("conversation"), about.get("turn")
        if conversation is None or turn is None:
            return
        attempt = ctx._attempt
        while True:
            with attempt.holding():
                others = await persist(lambda: self._not_ended(conversation), repr(attempt), attempt)
            earlier = [info for info in others if info.args["about"]["turn"] < turn]
            if not earlier:
                return
            try:
                await ctx.result(self._jobs.job(earlier[0].id))
            except (JobFailed, JobCancelled, UnknownJob):
                pass

    async def _not_ended(self, conversation: str) -> list[JobInfo]:
        """The turns of a conversation that have not ended, in order."""
        label = ("conversation", conversation)
        found = await self._jobs.find(task=self._name, status=(*_PENDING, *_BEGUN), label=label, limit=1000)
        return sorted(found, key=lambda info: info.args["about"]["turn"])

    # --- what handles ask ------------------------------------------------------------------------------

    async def _job(self, run_id: str) -> tuple[Job[Any], JobInfo]:
        job = self._jobs.job(run_id)
        try:
            info = await job.info()
        except UnknownJob as error:
            raise UnknownRun(str(error)) from error
        if info.task != self._name:
            raise UnknownRun(
                f"the job {run_id} is of the task {info.task!r}, and no run of the queue {self._name!r}"
            )
        return job, info

    async def info(self, run_id: str) -> RunInfo:
        return info_of((await self._job(run_id))[1])

    async def wait(self, run_id: str, timeout: float | None) -> RunInfo:
        job, _ = await self._job(run_id)
        return info_of(await job.wait(timeout))

    async def result(self, run_id: str, timeout: float | None) -> Any:
        await self._job(run_id)
        job: Job[Any] = Job(self._jobs._client, run_id, self._task.result)
        try:
            return await job.result(timeout)
        except JobFailed as error:
            raise failed(run_id, error.error) from error
        except JobCancelled as error:
            raise cancelled(run_id, (await job.info()).cancel_reason) from error

    async def cancel(self, run_id: str, reason: StopReason) -> CancelOutcome:
        return await (await self._job(run_id))[0].cancel(reason)

    async def send(self, run_id: str, name: str, data: Any) -> RunStatus:
        return _STATUS[await (await self._job(run_id))[0].send(name, data)]

    async def again(self, run_id: str) -> str:
        """Run a failed or cancelled one again; its completed steps are not repeated."""
        await (await self._job(run_id))[0].retry()
        return run_id

    def log(self, run_id: str) -> Log:
        try:
            return _RunLog(self, run_id, self._jobs.job(run_id).log())
        except UnknownJob as error:
            raise UnknownRun(str(error)) from error

    async def find(
        self, statuses: Sequence[RunStatus] | None, user: str | None, conversation: str | None, limit: int
    ) -> list[RunInfo]:
        label = None if user is None else ("user", user)
        label = label if conversation is None else ("conversation", conversation)
        wanted = None if statuses is None else [job for job, run in _STATUS.items() if run in statuses]
        found = await self._jobs.find(task=self._name, status=wanted, label=label, limit=limit)
        return [info_of(info) for info in found]

    async def counts(self) -> dict[RunStatus, int]:
        """How many are kept, by status."""
        overview = await self._jobs.overview()
        counted = dict.fromkeys(RunStatus, 0)
        for (queue, status), count in overview.counts.items():
            if queue == self._name:
                counted[_STATUS[status]] += count
        return counted


class _RunLog:
    """The log of a run's job, which speaks of runs."""

    def __init__(self, runs: JobRuns, run_id: str, log: Log) -> None:
        self.id = run_id
        self._runs = runs
        self._log = log

    async def read(self, after: int, limit: int) -> LogPage:
        try:
            return await self._log.read(after, limit)
        except UnknownJob as error:
            raise UnknownRun(str(error)) from error

    async def snapshot(self) -> dict[str, Any]:
        return shown_info(await self._runs.info(self.id))

    @contextlib.contextmanager
    def watch(self) -> Iterator[Callable[[], Awaitable[None]]]:
        with self._log.watch() as changed:
            yield changed


def _limit_key(prompt: Any, about: dict[str, Any]) -> str:
    """Runs of nobody have a key each, for they have no limit of their own."""
    return f"user {about['user']}" if about.get("user") is not None else f"run {about['nonce']}"


def _lane(order: Order) -> str:
    return f"{order.priority} {order.user or ''}"


def _place(info: JobInfo) -> tuple[int, int]:
    """The priority and the round of a run, from its job's priority."""
    above = -(-info.priority // _ROUNDS)
    return above - HIGHEST_PRIORITY - 1, above * _ROUNDS - info.priority


def _about(order: Order, nonce: str) -> dict[str, Any]:
    """What is stored of an order beside its prompt. Old workers pass over what they do not know."""
    return {
        "user": order.user,
        "conversation": order.conversation,
        "turn": order.turn,
        "budget": {name: value for name, value in order.budget._asdict().items() if value is not None},
        "nonce": nonce,
    }


def _order_of(prompt: Any, about: dict[str, Any]) -> Order:
    return Order(
        prompt=prompt,
        user=about.get("user"),
        priority=0,
        budget=Budget(**about.get("budget", {})),
        conversation=about.get("conversation"),
        turn=about.get("turn"),
    )


def info_of(info: JobInfo) -> RunInfo:
    """A run, as its job shows it."""
    about = info.args["about"]
    return RunInfo(
        id=info.id,
        status=_STATUS[info.status],
        prompt=info.args["prompt"],
        user=about.get("user"),
        priority=_place(info)[0],
        conversation=about.get("conversation"),
        turn=about.get("turn"),
        attempt=info.attempt,
        result=info.result,
        error=info.error,
        reason=info.cancel_reason,
        created_at=info.created_at,
        started_at=info.started_at,
        ended_at=info.ended_at,
    )
