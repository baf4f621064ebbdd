"""Workers: they join, renew their lease, resign; and who is dead is found out.

A worker's row is deleted before its jobs are taken. The deletion waits for a claim that is under way, which holds the
row; a claim that comes later finds no row and gets nothing. A lease that is renewed in the same moment as it is found
to be over has either another time by then, and is left alone, or hears that it was taken for dead.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ..._core._state import StopReason
from ...jobs._processes import ProcessIdentity
from ...jobs._rows import CancelRequest, Renewal, Rescued, WorkerRow
from .._outage import Outage
from ._clock import NOW
from ._ends import hand_over_all, lose_orphans
from ._leases import Lease
from ._store import Store

_JOIN = f"""INSERT INTO lastcall.worker (id, host, pid, process_start, boot_id, pid_namespace, lease_seconds,
    lease_until, concurrency, queues, joined_at, renewed_at)
    VALUES ($2, $3, $4, $5, $6, $7, $8::float8, {NOW} + $8::float8, $9, $10, {NOW}, {NOW})
    ON CONFLICT (id) DO UPDATE SET host = excluded.host, pid = excluded.pid, process_start = excluded.process_start,
    boot_id = excluded.boot_id, pid_namespace = excluded.pid_namespace, lease_seconds = excluded.lease_seconds,
    lease_until = excluded.lease_until, concurrency = excluded.concurrency, queues = excluded.queues,
    joined_at = excluded.joined_at, renewed_at = excluded.renewed_at"""
# So long after the server's start a lease may be over because nobody could renew it. Who lived through it knows that
# from `Outage`; a worker that was only just started knows nothing, and found everybody dead.
_JUST_UP_SECONDS = 3.0
_CANCELS = """SELECT id, attempt, cancel_reason FROM lastcall.job
    WHERE status = 'running' AND worker = $1 AND cancel_reason IS NOT NULL ORDER BY n"""
_RENEW = f"""UPDATE lastcall.worker SET lease_until = {NOW} + lease_seconds, renewed_at = {NOW} WHERE id = $2
    RETURNING 1"""
_OTHERS = f"""SELECT {NOW} AS now,
    extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8 AS up_seconds,
    worker.id, pid, process_start, boot_id, pid_namespace, lease_seconds, lease_until, renewed_at
    FROM (SELECT 1) AS one LEFT JOIN lastcall.worker ON id <> $2"""
# Only while it has not been renewed since we looked.
_BURY = """DELETE FROM lastcall.worker USING unnest($1::text[], $2::float8[]) AS dead (id, lease_until)
    WHERE worker.id = dead.id AND worker.lease_until = dead.lease_until"""
_LEAVE = "DELETE FROM lastcall.worker WHERE id = $1"
_ANY_ORPHAN = """SELECT EXISTS (SELECT FROM lastcall.job WHERE status = 'running'
    AND NOT EXISTS (SELECT FROM lastcall.worker WHERE worker.id = job.worker))"""


async def join(store: Store, worker: WorkerRow) -> None:
    queues = None if worker.queues is None else sorted(worker.queues)
    await store.rows(
        _JOIN, store.now, worker.id, worker.host, worker.pid, worker.process_start, worker.boot_id,
        worker.pid_namespace, worker.lease_seconds, worker.concurrency, queues,
    )  # fmt: skip


async def renew(store: Store, worker_id: str) -> Renewal:
    if await store.value(_RENEW, store.now, worker_id) is None:
        return Renewal(False, [])
    return Renewal(True, await cancel_requests(store, worker_id))


async def cancel_requests(store: Store, worker_id: str) -> list[CancelRequest]:
    """Which running jobs of this worker somebody wants cancelled. A reading."""
    rows = await store.rows(_CANCELS, worker_id)
    return [CancelRequest(id, attempt, StopReason(reason)) for id, attempt, reason in rows]


async def resign(store: Store, worker_id: str) -> int:
    await store.rows(_LEAVE, worker_id)
    return await hand_over_all(store, worker_id)


async def find_dead(store: Store, worker_id: str, outage: Outage) -> list[Lease]:
    """The dead among the other workers. A reading, by which this engine also looks at the server's clock."""
    monotonic = _monotonic(store)
    asked = monotonic()
    rows = await store.rows(_OTHERS, store.now, worker_id)
    answered = monotonic()
    leases, here = store.terms.leases, store.terms.here
    now = rows[0]["now"]
    leases.observe(now, asked, answered)
    found = leases.dead([_lease(row) for row in rows if row["id"] is not None], now, answered, here)
    is_just_up = store.terms.clock is None and rows[0]["up_seconds"] < _JUST_UP_SECONDS
    return [lease for lease, is_gone in found if is_gone or not (is_just_up or outage.excuses(lease.seconds))]


async def any_orphan(store: Store) -> bool:
    """Whether a job runs whose worker has no row, as after a rescue that was broken off. A reading."""
    return bool(await store.value(_ANY_ORPHAN))


async def bury(store: Store, dead: list[Lease]) -> list[Rescued]:
    """Delete the rows of the dead, and take their jobs. In a transaction."""
    await store.rows(_BURY, [lease.worker_id for lease in dead], [lease.until for lease in dead])
    # By the missing row and not by the names just found, so that no job can stay behind with nobody.
    return await lose_orphans(store)


def _monotonic(store: Store) -> Callable[[], float]:
    clock = store.terms.clock
    return time.monotonic if clock is None else clock.monotonic


def _lease(row: Any) -> Lease:
    process = ProcessIdentity(row["pid"], row["process_start"], row["boot_id"], row["pid_namespace"])
    return Lease(row["id"], process, row["lease_seconds"], row["lease_until"], row["renewed_at"])
