"""Suspects: jobs whose next loss would be the last one, and which therefore run alone (`Engine.claim` has the rules).

The bit 2 of `held` says that a job is one; it stays while the job waits or is scheduled, and goes with the first newly
completed step. There are hardly ever any, and a claim looks at the others only if there are.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from enum import Enum

from ._store import Store

# As a value of `held`.
SUSPECT = 2

_ANY = "SELECT 1 FROM lastcall_job INDEXED BY lastcall_job_suspect WHERE held >= 2 LIMIT 1"
# Of the running jobs of a worker: none, some, or one that is a suspect (and then it is the only one, but for jobs that
# an older version of lastcall has put beside it).
_HELD_BY = """SELECT max(held) FROM lastcall_job INDEXED BY lastcall_job_running
    WHERE status = 'running' AND worker = ?"""
_FIRST = """SELECT n, priority FROM lastcall_job INDEXED BY lastcall_job_suspect
    WHERE held >= 2 AND held = 2 AND status = 'queued' AND lane IN (SELECT value FROM json_each(?))
    ORDER BY priority DESC, n LIMIT 1"""
_CLEAR = "UPDATE lastcall_job SET held = held & 1 WHERE n IN (SELECT value FROM json_each(?)) AND held >= 2"


class Holding(Enum):
    """What a worker holds, as far as suspects are concerned."""

    NOTHING = 0
    NORMAL = 1
    SUSPECT = 2


def are_there_any(store: Store) -> bool:
    """Whether any job anywhere is a suspect."""
    return store.execute(_ANY).fetchone() is not None


def holding(store: Store, worker_id: str) -> Holding:
    (held,) = store.execute(_HELD_BY, (worker_id,)).fetchone()
    if held is None:
        return Holding.NOTHING
    return Holding.SUSPECT if held >= SUSPECT else Holding.NORMAL


def first_of(store: Store, lanes: Sequence[int]) -> tuple[int, int] | None:
    """The number and the priority of the first queued suspect in these lanes that no limit key holds back."""
    found: tuple[int, int] | None = store.execute(_FIRST, (json.dumps(lanes),)).fetchone() if lanes else None
    return found


def progressed(store: Store, jobs: Collection[int]) -> None:
    """Steps of these jobs have been newly completed: they are no suspects any more."""
    if are_there_any(store):
        store.execute(_CLEAR, (json.dumps(list(jobs)),))
