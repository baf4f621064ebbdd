"""Workers: they join, renew their lease, resign; and who is dead is found out."""

from __future__ import annotations

import json
import sqlite3
from typing import NamedTuple

from ..._core._state import StopReason
from ...jobs._processes import ProcessIdentity, is_gone
from ...jobs._rows import CancelRequest, Renewal, Rescued, WorkerRow
from ._ends import hand_over_all, lose_orphans
from ._store import Store

_JOIN = """INSERT OR REPLACE INTO lastcall_worker (id, host, pid, process_start, boot_id, pid_namespace, lease_seconds,
    lease_until, concurrency, queues, joined_at, renewed_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_RENEW = "UPDATE lastcall_worker SET lease_until = ? + lease_seconds, renewed_at = ? WHERE id = ?"
_CANCELS = """SELECT id, attempt, cancel_reason FROM lastcall_job INDEXED BY lastcall_job_running
    WHERE status = 'running' AND worker = ? AND cancel_reason IS NOT NULL ORDER BY n"""
_OTHERS = """SELECT id, pid, process_start, boot_id, pid_namespace, lease_seconds, lease_until FROM lastcall_worker
    WHERE id <> ?"""
_LEAVE = "DELETE FROM lastcall_worker WHERE id = ?"


class Lease(NamedTuple):
    """A worker's claim to be alive: until when, by the monotonic clock of which boot, and whose it is."""

    worker_id: str
    process: ProcessIdentity
    seconds: float
    until: float


def is_dead(lease: Lease, now: float, here: ProcessIdentity, *, excused: bool = False) -> bool:
    """Whether the lease is over, or the process that held it is certainly gone. `now` is monotonic. `excused`: nobody
    could renew lately, so that the lease's end alone says nothing.

    Everybody who has the file open is on this machine (SQLite's log needs shared memory), so one clock measures all
    leases, and another boot id means that the machine was started anew since.
    """
    theirs, ours = lease.process.boot_id, here.boot_id
    if theirs is not None and ours is not None:
        if theirs != ours:
            return True
    elif lease.until - now > lease.seconds:
        return True  # the clock began anew: a lease never lies further ahead than its own length
    return (lease.until <= now and not excused) or is_gone(lease.process, here)


def join(store: Store, worker: WorkerRow) -> None:
    queues = None if worker.queues is None else json.dumps(sorted(worker.queues))
    until = store.clock.monotonic() + worker.lease_seconds
    store.execute(
        _JOIN,
        (worker.id, worker.host, worker.pid, worker.process_start, worker.boot_id, worker.pid_namespace,
         worker.lease_seconds, until, worker.concurrency, queues, store.now, store.now),
    )  # fmt: skip


def renew(store: Store, worker_id: str) -> Renewal:
    alive = store.execute(_RENEW, (store.clock.monotonic(), store.now, worker_id)).rowcount == 1
    if not alive:
        return Renewal(False, [])
    return Renewal(True, cancel_requests(store.connection, worker_id))


def cancel_requests(connection: sqlite3.Connection, worker_id: str) -> list[CancelRequest]:
    """Which running jobs of this worker somebody wants cancelled. A reading."""
    rows = connection.execute(_CANCELS, (worker_id,)).fetchall()
    return [CancelRequest(id, attempt, StopReason(reason)) for id, attempt, reason in rows]


def resign(store: Store, worker_id: str) -> int:
    handed_over = hand_over_all(store, worker_id)
    store.execute(_LEAVE, (worker_id,))
    return handed_over


def rescue(store: Store, worker_id: str) -> list[Rescued]:
    now = store.clock.monotonic()
    leases = [_lease(*row) for row in store.execute(_OTHERS, (worker_id,)).fetchall()]
    for lease in leases:
        if is_dead(lease, now, store.here, excused=store.outage.excuses(lease.seconds)):
            store.execute(_LEAVE, (lease.worker_id,))
    # By the missing row and not by the names just found, so that no job can stay behind with nobody.
    return lose_orphans(store)


def _lease(
    id: str,
    pid: int,
    start: str | None,
    boot: str | None,
    namespace: str | None,
    seconds: float,
    until: float,
) -> Lease:
    return Lease(id, ProcessIdentity(pid, start, boot, namespace), seconds, until)
