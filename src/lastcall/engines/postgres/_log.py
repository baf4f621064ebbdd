"""The logs of jobs: entries are appended, numbered, and trimmed when there are too many or too old ones.

Who calls it: `append_events`, with what others write; and the database, before each commit, with what the engine itself
has told meanwhile (`Store.tell`). That is gathered and comes last, as if it had happened after the rest of the commit.

A job's row says where its log ends: the last `seq`, and how many bytes it has had. Who appends locks the row by adding
to them, so the numbers have no gaps. Three statements elsewhere append by themselves, because they are transactions of
their own: a claim, the completion of many, and steps that were completed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ...jobs._events import size_of, trimmed_up_to
from ...jobs._rows import DEFAULT_LOG_MAX_BYTES
from ._clock import NOW
from ._store import Entry, Store

_APPEND = f"""WITH heads AS (SELECT * FROM unnest($2::bigint[], $3::int[], $4::bigint[]) AS heads (n, count, size)),
    numbered AS (UPDATE lastcall.job SET last_seq = last_seq + heads.count, log_bytes = log_bytes + heads.size
    FROM heads WHERE job.n = heads.n RETURNING job.n, job.last_seq, heads.count, heads.size, job.log_bytes,
    job.log_max_bytes, job.log_max_age_seconds),
    written AS (INSERT INTO lastcall.event (job, seq, attempt, at, step, type, data, upto)
    SELECT numbered.n, numbered.last_seq - numbered.count + new.place, new.attempt, {NOW}, new.step, new.type,
    new.data, numbered.log_bytes - numbered.size + new.upto
    FROM numbered JOIN unnest($5::bigint[], $6::int[], $7::int[], $8::text[], $9::text[], $10::text[], $11::bigint[])
    AS new (n, place, attempt, step, type, data, upto) ON new.n = numbered.n)
    SELECT n, last_seq, log_bytes - size AS log_bytes_before, log_bytes, log_max_bytes, log_max_age_seconds
    FROM numbered"""
# Each walks over what it deletes, and one entry further.
_TRIM_SIZE = """DELETE FROM lastcall.event WHERE job = $1 AND seq <
    (SELECT seq FROM lastcall.event WHERE job = $1 AND upto > $2 ORDER BY seq LIMIT 1)"""
_TRIM_AGE = f"""DELETE FROM lastcall.event WHERE job = $2 AND seq <
    (SELECT seq FROM lastcall.event WHERE job = $2 AND at >= {NOW} - $3::float8 ORDER BY seq LIMIT 1)"""


class Head(NamedTuple):
    """Where a log ends after something was appended, how long it was before; and how much of it is kept."""

    n: int
    seq: int
    bytes_before: int
    bytes: int
    max_bytes: int | None
    max_age_seconds: float | None


async def write_told(store: Store) -> None:
    """Append what the engine has told since the last time."""
    told, store.told = store.told, []
    if told:
        await append(store, told)


async def append(store: Store, entries: Sequence[Entry]) -> dict[int, int]:
    """Append in this order, each to the log of its job; the last `seq` of each of these. In a transaction."""
    counts: dict[int, int] = {}
    sizes: dict[int, int] = {}
    rows: list[tuple[Any, ...]] = []
    for n, attempt, event in entries:
        counts[n] = counts.get(n, 0) + 1
        sizes[n] = sizes.get(n, 0) + size_of(event)
        rows.append((n, counts[n], attempt, event.step, event.type, event.data, sizes[n]))
    columns = [list(column) for column in zip(*rows, strict=True)]
    heads = [
        Head(*row)
        for row in await store.rows(
            _APPEND, store.now, list(counts), list(counts.values()), list(sizes.values()), *columns
        )
    ]
    await trim(store, heads)
    return {head.n: head.seq for head in heads}


async def trim(store: Store, heads: Iterable[Head]) -> None:
    """Delete what these logs need not keep. The newest entry always stays."""
    for head in heads:
        max_bytes = DEFAULT_LOG_MAX_BYTES if head.max_bytes is None else head.max_bytes
        up_to = trimmed_up_to(head.bytes_before, head.bytes, max_bytes)
        if up_to is not None:
            await store.rows(_TRIM_SIZE, head.n, up_to)
        if head.max_age_seconds is not None:
            await store.rows(_TRIM_AGE, store.now, head.n, head.max_age_seconds)
