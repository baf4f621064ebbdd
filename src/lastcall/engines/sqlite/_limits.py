"""Who may run: at most so many jobs of one limit key, so many starts of one task in a time.

A job that enters `queued` is held back (bit 1 of `held`, outside the claim index) while `limit_count` others of its
key are running or queued unheld: those have a place. When a place is given up, the first held one (priority, then age)
takes it in the same transaction. So a claim never sees a job that it may not take, and a million held jobs cost it
nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from ...jobs._rows import TaskLimits
from ._store import Store

# Two looks, each at the beginning of its part of the index: of both together, a million might be sorted.
_FIRST_HELD = """SELECT n, limit_count FROM (
    SELECT * FROM (SELECT n, limit_count, priority FROM lastcall_job
        WHERE limit_key = ? AND held = 1 AND status IN ('queued', 'running') ORDER BY priority DESC, n LIMIT 1)
    UNION ALL SELECT * FROM (SELECT n, limit_count, priority FROM lastcall_job
        WHERE limit_key = ? AND held = 3 AND status IN ('queued', 'running') ORDER BY priority DESC, n LIMIT 1))
    ORDER BY priority DESC, n LIMIT 1"""
_TAKEN = """SELECT count(*) FROM lastcall_job
    WHERE limit_key = ? AND held IN (0, 2) AND status IN ('queued', 'running')"""
_UNHOLD = "UPDATE lastcall_job SET held = held & 2 WHERE n = ?"
_QUEUE = "UPDATE lastcall_job SET status = 'queued', held = (held & 2) | ?, worker = NULL, due_at = NULL WHERE n = ?"
_LIMIT = "SELECT limit_count FROM lastcall_job WHERE n = ?"

_BUCKET = "SELECT tokens, at FROM lastcall_rate WHERE task = ?"
_SAVE_BUCKET = """INSERT INTO lastcall_rate (task, tokens, at) VALUES (?, ?, ?)
    ON CONFLICT (task) DO UPDATE SET tokens = excluded.tokens, at = excluded.at"""


def enqueue(store: Store, n: int, limit_key: str | None) -> None:
    """Put a job in line that was not: it is held back if its limit is reached."""
    held = False
    if limit_key is not None:
        (limit,) = store.execute(_LIMIT, (n,)).fetchone()
        held = is_full(store, limit_key, limit)
    store.execute(_QUEUE, (held, n))


def requeue(store: Store, n: int) -> None:
    """Put a running job back in line; it keeps its place under its limit."""
    store.execute(_QUEUE, (False, n))


def is_full(store: Store, limit_key: str, limit: int | None) -> bool:
    """Whether a job with this limit finds no place now."""
    if limit is None:
        return False
    (taken,) = store.execute(_TAKEN, (limit_key,)).fetchone()
    return bool(taken >= limit)


def release(store: Store, limit_key: str | None) -> None:
    """A job of this key has given up its place: let in those whom nothing holds back any more."""
    if limit_key is None:
        return
    while True:
        first = store.execute(_FIRST_HELD, (limit_key, limit_key)).fetchone()
        if first is None:
            return
        n, limit = first
        if is_full(store, limit_key, limit):
            return
        store.execute(_UNHOLD, (n,))


# --- rates ---------------------------------------------------------------------------------------------


class Bucket(NamedTuple):
    """A token bucket as it is now. One token is one start."""

    tokens: float
    tokens_per_second: float

    @property
    def whole(self) -> int:
        """How many may start now. A token refilled over its exact time may lack a rounding error."""
        return int(self.tokens + 1e-9)

    @property
    def next_seconds(self) -> float:
        """When there will be a whole token."""
        return max(0.0, (1.0 - self.tokens) / self.tokens_per_second)


def refilled(tokens: float, elapsed_seconds: float, count: int, seconds: float) -> Bucket:
    """What a bucket holds that held `tokens`. It is full after a reboot: the clock began anew."""
    rate = count / seconds
    if elapsed_seconds < 0:
        return Bucket(float(count), rate)
    return Bucket(min(float(count), tokens + elapsed_seconds * rate), rate)


def bucket(store: Store, task: str, limits: TaskLimits) -> Bucket | None:
    """The task's bucket; None: its rate is not limited."""
    if limits.rate_count is None or not limits.rate_seconds:
        return None
    row = store.execute(_BUCKET, (task,)).fetchone()
    if row is None:
        return refilled(limits.rate_count, 0.0, limits.rate_count, limits.rate_seconds)
    tokens, at = row
    return refilled(tokens, store.clock.monotonic() - at, limits.rate_count, limits.rate_seconds)


def take_tokens(store: Store, task: str, full: Bucket, count: int) -> Bucket:
    """Write down that `count` have started."""
    left = full._replace(tokens=full.tokens - count)
    store.execute(_SAVE_BUCKET, (task, left.tokens, store.clock.monotonic()))
    return left
