"""Where `top` looks: the HTTP face of a running process, or a store. Each look is a snapshot; trouble is in it.

A process that drains closes its listener at once, so its drain is heard on a connection that was opened before.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from typing import Any, Protocol

from lastcall.cli._drain import drain_events
from lastcall.cli._load import jobs_at
from lastcall.cli._remote import Away, Refused, Remote, RemoteAnswer
from lastcall.cli._say import Unusable
from lastcall.cli._schema import shown
from lastcall.cli._tables import what_of
from lastcall.cli.top._model import Lease, Row, Snapshot, ordered
from lastcall.exceptions import EngineUnavailable, LastcallError
from lastcall.jobs import JobInfo, JobStatus, Overview

_ROWS = 200
_OPEN = (JobStatus.RUNNING, JobStatus.QUEUED, JobStatus.WAITING, JobStatus.SCHEDULED)
_AGAIN_SECONDS = 1.0


class Source(Protocol):
    """`look` never raises for what may pass; `cancel` answers in words."""

    def look(self) -> Snapshot: ...

    def cancel(self, row: Row) -> str: ...

    def close(self) -> None: ...


# --- a store --------------------------------------------------------------------------------------------


class StoreSource:
    """Raises `Unusable`, `LastcallError` at the beginning for a store that cannot be opened."""

    def __init__(self, url: str) -> None:
        self._jobs = jobs_at(url, None)
        self._place = shown(self._jobs.engine)
        self._runner = asyncio.Runner()
        try:
            self._runner.run(self._open())
        except BaseException:
            self.close()
            raise

    async def _open(self) -> None:
        await self._jobs.open()

    def look(self) -> Snapshot:
        try:
            overview, infos = self._runner.run(self._read())
        except EngineUnavailable as error:
            return Snapshot(time.monotonic(), self._place, "away", None, None, (), (), trouble=str(error))
        rows = ordered(_row_of(info, overview.now) for info in infos)
        return Snapshot(
            time.monotonic(), self._place, "database", None, _queues(overview), _leases(overview), rows
        )

    async def _read(self) -> tuple[Overview, list[JobInfo]]:
        return await self._jobs.overview(), await self._jobs.find(status=_OPEN, limit=_ROWS)

    def cancel(self, row: Row) -> str:
        async def cancel() -> str:
            return (await self._jobs.job(row.id).cancel()).value

        try:
            return f"{row.id}: {self._runner.run(cancel()).replace('_', ' ')}"
        except LastcallError as error:
            return str(error)

    def close(self) -> None:
        async def close() -> None:
            await self._jobs.close()

        self._runner.run(close())
        self._runner.close()


def _queues(overview: Overview) -> dict[str, dict[str, int]]:
    queues: dict[str, dict[str, int]] = {}
    for (queue, status), count in overview.counts.items():
        queues.setdefault(queue, {})[status.value] = count
    return queues


def _leases(overview: Overview) -> list[Lease]:
    return [
        Lease(
            worker.id,
            worker.host,
            worker.pid,
            worker.running,
            worker.concurrency,
            worker.renewed_at + worker.lease_seconds - overview.now,
            None if worker.queues is None else sorted(worker.queues),
        )
        for worker in overview.workers
    ]


def _row_of(info: JobInfo, now: float) -> Row:
    since = info.started_at if info.status is JobStatus.RUNNING else info.created_at
    seconds = None if since is None else max(0.0, now - since)
    return Row("job", info.id, info.task, info.status.value, seconds, what_of(info))


# --- a process ------------------------------------------------------------------------------------------


class RemoteSource:
    """Raises `Unusable`, `Away`, `Refused` at the beginning if that is no process of ours."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._has_jobs = True
        remote.get("/stats")
        self._drain = _DrainHearer(remote)

    def look(self) -> Snapshot:
        told = self._drain.told
        try:
            return self._look(told)
        except (Away, Refused) as error:
            state = "away" if told is None else str(told["state"])
            rows = [] if told is None else [_row_of_work(work) for work in told.get("work", ())]
            at = time.monotonic()
            # In a drain the listener is closed, and that is no trouble.
            trouble = str(error) if told is None else None
            return Snapshot(at, self._remote.shown, state, None, None, (), rows, told, trouble)
        except (KeyError, TypeError, ValueError, AttributeError):
            why = "its answers are not understood: another version?"
            return Snapshot(time.monotonic(), self._remote.shown, "away", None, None, (), (), told, why)

    def _look(self, told: Mapping[str, Any] | None) -> Snapshot:
        stats = self._remote.get("/stats")
        rows = []
        for status in ("running", "pending"):
            page = self._remote.get("/tasks", {"status": status, "limit": _ROWS})
            rows += [_row_of_work(task) for task in page["tasks"]]
        queues, leases = None, list[Lease]()
        if self._has_jobs:
            queues, leases, more = self._look_at_jobs()
            rows += more
        counts = {name: int(stats[name]) for name in _TASK_COUNTS if name in stats}
        return Snapshot(
            time.monotonic(), self._remote.shown, stats["state"], counts, queues, leases, ordered(rows), told
        )

    def _look_at_jobs(self) -> tuple[dict[str, dict[str, int]] | None, list[Lease], list[Row]]:
        try:
            overview = self._remote.get("/overview")
            open_ones = [status.value for status in _OPEN]
            page = self._remote.get("/jobs", {"status": open_ones, "limit": _ROWS})
        except Refused as error:
            if error.status != 404:
                raise
            self._has_jobs = False
            return None, [], []
        rows = [_row_of(_info_of(job), overview["now"]) for job in page["jobs"]]
        leases = [
            Lease(
                worker["id"],
                worker["host"],
                worker["pid"],
                worker["running"],
                worker["concurrency"],
                worker["renewed_at"] + worker["lease_seconds"] - overview["now"],
                worker["queues"],
            )
            for worker in overview["workers"]
        ]
        return overview["queues"], leases, rows

    def cancel(self, row: Row) -> str:
        path = f"/jobs/{row.id}/cancel" if row.is_job else f"/tasks/{row.id}/cancel"
        try:
            answer = str(self._remote.post(path).get("answer", "done"))
        except (Away, Refused, AttributeError) as error:
            return str(error)
        return f"{row.id}: {answer.replace('_', ' ')}"

    def close(self) -> None:
        self._drain.close()


def _info_of(job: Mapping[str, Any]) -> JobInfo:
    """A job from a list, in which results are left out; fields that a newer process has more are passed over."""
    return JobInfo._make(job.get(name) for name in JobInfo._fields)._replace(status=JobStatus(job["status"]))


_TASK_COUNTS = ("running", "pending", "completed", "failed", "cancelled", "calls")


def _row_of_work(work: Mapping[str, Any]) -> Row:
    seconds, group = work.get("seconds"), work.get("group")
    if seconds is None and isinstance(work.get("started_at"), int | float):
        seconds = max(0.0, time.time() - work["started_at"])
    return Row(
        str(work["kind"]),
        str(work["id"]),
        str(work["name"]),
        str(work["status"]),
        float(seconds) if isinstance(seconds, int | float) else None,
        f"group {group}" if group else "",
    )


class _DrainHearer:
    """Listens to PREFIX/drain in a thread, and comes back when the process was replaced."""

    def __init__(self, remote: Remote) -> None:
        self.told: Mapping[str, Any] | None = None
        self._remote = remote
        self._answer: RemoteAnswer | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="lastcall top: drain", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        if (answer := self._answer) is not None:
            answer.close()
        self._thread.join(_AGAIN_SECONDS)

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                with self._remote.open("GET", "/drain", accept="text/event-stream") as self._answer:
                    for told in drain_events(self._answer):
                        self.told = None if told["state"] == "open" else told
            except Refused:
                return  # not offered there, or to too many already
            except Away:
                pass
            self._answer = None
            self._over.wait(_AGAIN_SECONDS)


def check_place(place: str) -> None:
    """Raises `Unusable` for what is neither a URL of a process nor of a store."""
    if "://" not in place:
        raise Unusable(
            f"{place!r} is neither a running process, such as http://127.0.0.1:8000, nor a database, such as "
            "sqlite:///jobs.db"
        )
