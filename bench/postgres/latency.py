"""From the call of submit to the first line of the job, as `bench.jobs.latency` measures it, beside raw asyncpg."""

from __future__ import annotations

from ..jobs import latency
from ..jobs.rows import Goal, Row
from .measuring import Bench


def rows(bench: Bench) -> list[Row]:
    sizes = bench.sizes

    def floor(run: object) -> list[float]:
        taken: list[float] = bench.floor("paced", count=sizes.paced, per_second=sizes.per_second)
        return taken

    goals = (Goal("≤ 3 ms", value_at_most=3.0), Goal("≤ 8 ms", value_at_most=8.0))
    return latency.rows(
        bench.jobs_run(), latency.Beside("postgres", "raw asyncpg, an insert and its commit", floor, goals)
    )
