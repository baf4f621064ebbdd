"""The sweep: sends messages for jobs that are queued and that nobody picks up.

Who calls it: the worker in every process of the carrier. A message is lost, its broker restarted, its worker killed
before it claimed; and for a job that was rescued, whose sleep is over or that somebody has sent a signal to, nobody has
sent one. All of them are queued in the engine, which is the truth, so there they are looked for.

Nobody elects who sweeps: each process looks a random moment after the news. The first one's message has the job running
before most others look. A message too many finds nothing to do.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from ..jobs._engine import Engine
from ..jobs._fetcher import Fetcher
from ..jobs._rows import ClaimRequest, JobQuery, JobRow
from ..jobs._service import Service
from ..jobs._state import JobStatus

# So many jobs are looked at, the newest ones. Messages take the oldest first, so a lack of them shows at this end.
_LOOK_AT: Final = 100
_SEND_AT_ONCE: Final = 50
_LEAST_SECONDS: Final = 0.02
_SPREAD_SECONDS: Final = 0.4
# Younger than this, its submitter's message is probably on its way.
_YOUNG_SECONDS: Final = 1.0


class Seen(NamedTuple):
    """A queued job that this process knows of: at which attempt, and when it was sent for, or first seen."""

    attempt: int
    since: float


def due(
    rows: Sequence[JobRow], seen: Mapping[str, Seen], *, now: float, wall: float, resend_seconds: float
) -> tuple[list[JobRow], dict[str, Seen]]:
    """Which of the queued jobs want a message now, and what to remember. Pure. `now`: monotonic; `wall`: as theirs.

    A job that has run before, or is not young, gets one at first sight; then, and otherwise, one each
    `resend_seconds` while it stays where it is. Clocks that differ only make it sooner or later.
    """
    wanted: list[JobRow] = []
    remembered: dict[str, Seen] = {}
    for row in rows:
        before = seen.get(row.id)
        if before is None or before.attempt != row.attempt:
            wants = row.attempt > 0 or wall - row.created_at >= _YOUNG_SECONDS
            before = None
        else:
            wants = now - before.since >= resend_seconds
        if wants and len(wanted) < _SEND_AT_ONCE:
            wanted.append(row)
            before = Seen(row.attempt, now)
        elif before is None and not wants:
            before = Seen(row.attempt, now)
        if before is not None:
            remembered[row.id] = before
    return wanted, remembered


class Sweeper(Service):
    """`fetcher`: whose worker this is."""

    name = "sweeper"

    def __init__(
        self, engine: Engine, fetcher: Fetcher, send: Callable[[str, str], None], resend_seconds: float
    ) -> None:
        super().__init__()
        self._engine = engine
        self._fetcher = fetcher
        self._send = send
        self._resend_seconds = resend_seconds
        self._seen: dict[str, Seen] = {}

    async def run_once(self) -> float | None:
        await asyncio.sleep(random.uniform(_LEAST_SECONDS, _SPREAD_SECONDS))
        if self.stopping:
            return None
        # Asking for no jobs makes those that are due ready, and tells when more will be.
        request = ClaimRequest(self._fetcher.worker_id, 0, {})
        next_due = (await self._engine.claim(request)).next_due_seconds
        rows = await self._engine.find(JobQuery(frozenset({JobStatus.QUEUED}), limit=_LOOK_AT))
        wanted, self._seen = due(
            rows,
            self._seen,
            now=time.monotonic(),
            wall=time.time(),
            resend_seconds=self._resend_seconds,
        )
        for row in wanted:
            self._send(row.id, row.queue)
        look_again = self._resend_seconds / 2
        return max(0.001, look_again if next_due is None else min(look_again, next_due))
