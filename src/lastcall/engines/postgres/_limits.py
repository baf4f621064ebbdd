"""Who may run: at most so many jobs of one limit key, so many starts of one task in a time.

A job that enters `queued` is held back (`held`, outside the claim index) while `limit_count` others of its key are
running or queued unheld: those have a place. When a place is given up, the first held one (priority, then age) takes it
in the same transaction. So a claim never sees a job that it may not take, and a million held jobs cost it nothing.

All of this is decided under the lock of the key (`Store.lock_keys`), buckets under that of the task.
"""

from __future__ import annotations

from typing import NamedTuple

from ...jobs._rows import TaskLimits
from ._store import Store

_FIRST_HELD = """SELECT n, limit_count FROM lastcall.job
    WHERE limit_key = $1 AND held AND status IN ('queued', 'running') ORDER BY priority DESC, n LIMIT 1"""
_TAKEN = """SELECT count(*) FROM lastcall.job
    WHERE limit_key = $1 AND NOT held AND status IN ('queued', 'running')"""
_UNHOLD = "UPDATE lastcall.job SET held = false WHERE n = $1"
_QUEUE = "UPDATE lastcall.job SET status = 'queued', held = $2, worker = NULL, due_at = NULL WHERE n = $1"
_LIMIT = "SELECT limit_count FROM lastcall.job WHERE n = $1"

_BUCKET = "SELECT tokens, at FROM lastcall.rate WHERE task = $1"
_SAVE_BUCKET = """INSERT INTO lastcall.rate (task, tokens, at) VALUES ($1, $2, $3)
    ON CONFLICT (task) DO UPDATE SET tokens = excluded.tokens, at = excluded.at"""


async def enqueue(store: Store, n: int, limit_key: str | None) -> None:
    """Put a job in line that was not: it is held back if its limit is reached."""
    held = False
    if limit_key is not None:
        await store.lock_keys([limit_key])
        held = await is_full(store, limit_key, await store.value(_LIMIT, n))
    await store.rows(_QUEUE, n, held)


async def requeue(store: Store, n: int) -> None:
    """Put a running job back in line; it keeps its place under its limit."""
    await store.rows(_QUEUE, n, False)


async def is_full(store: Store, limit_key: str, limit: int | None) -> bool:
    """Whether a job with this limit finds no place now."""
    return limit is not None and await places(store, limit_key) >= limit


async def places(store: Store, limit_key: str) -> int:
    """How many have a place."""
    return int(await store.value(_TAKEN, limit_key))


async def release(store: Store, limit_key: str | None) -> None:
    """A job of this key has given up its place: let in those whom nothing holds back any more."""
    if limit_key is None:
        return
    await store.lock_keys([limit_key])
    while True:
        first = await store.row(_FIRST_HELD, limit_key)
        if first is None or await is_full(store, limit_key, first[1]):
            return
        await store.rows(_UNHOLD, first[0])


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
    """What a bucket holds that held `tokens`. While the server's clock is set back no time passes for it."""
    rate = count / seconds
    return Bucket(min(float(count), tokens + max(0.0, elapsed_seconds) * rate), rate)


async def bucket(store: Store, task: str, limits: TaskLimits) -> Bucket | None:
    """The task's bucket; None: its rate is not limited."""
    if limits.rate_count is None or not limits.rate_seconds:
        return None
    row = await store.row(_BUCKET, task)
    if row is None:
        return refilled(limits.rate_count, 0.0, limits.rate_count, limits.rate_seconds)
    tokens, at = row
    if at > store.now:  # set back: begin anew from here, or it would stand still until then
        await store.rows(_SAVE_BUCKET, task, tokens, store.now)
    return refilled(tokens, store.now - at, limits.rate_count, limits.rate_seconds)


async def take_tokens(store: Store, task: str, full: Bucket, count: int) -> Bucket:
    """Write down that `count` have started."""
    left = full._replace(tokens=full.tokens - count)
    await store.rows(_SAVE_BUCKET, task, left.tokens, store.now)
    return left
