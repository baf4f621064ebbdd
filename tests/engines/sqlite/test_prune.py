"""Pruning a file that is larger than one call looks through."""

from pathlib import Path

import pytest

from lastcall.engines.sqlite import _engine
from lastcall.jobs._rows import AttemptEnd, ClaimRequest, Completed, NewJob, WorkerRow
from lastcall.testing import VirtualClock

from .support import opened

pytestmark = pytest.mark.loops("asyncio")


async def test_a_large_file_is_looked_through_in_few_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred times as many jobs as one call looks at, and always the oldest are due: once the size of the file is
    known, some ten calls find them, so that no file grows faster than it is looked through."""
    monkeypatch.setattr(_engine, "_PRUNE_SLICE", 5)
    monkeypatch.setattr(_engine, "_PRUNE_SLICES", 1)
    clock = VirtualClock()
    async with opened(tmp_path / "jobs.db", clock=clock) as engine:
        await engine.join(WorkerRow("w", "host", 1, None, None, None, 1e9, 10, None))
        await engine.submit([NewJob(str(n), "work", "[]", retention_seconds=60.0) for n in range(500)])
        # The first passage, in which nothing is due, tells how large the file is.
        await engine.prune(100)
        while engine._prune_after:
            await engine.prune(100)
        claimed = await engine.claim(ClaimRequest("w", 2, {("work", ""): None}))
        await engine.finish([AttemptEnd(job.id, job.attempt, Completed("1")) for job in claimed.jobs])
        await engine.prune(100)  # passes by what is due a moment later
        clock.advance(60)
        deleted = calls = 0
        while deleted < 2 and calls < 200:
            deleted += await engine.prune(100)
            calls += 1
        assert deleted == 2 and calls <= 12
