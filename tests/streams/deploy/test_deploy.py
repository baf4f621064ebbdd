"""The short play; the long one is `make stream-deploy`."""

from pathlib import Path

import pytest

from .play import Plan, Play

pytestmark = [pytest.mark.server, pytest.mark.loops("asyncio"), pytest.mark.timeout(180)]


@pytest.mark.parametrize("kills", [0, 60], ids=["stopped", "stopped-and-killed"])
async def test_readers_follow_a_deploy(tmp_path: Path, kills: int) -> None:
    """Two servers behind a proxy are replaced in turn: each of a hundred readers is told everything, once, in order."""
    plan = Plan(seed=7, streams=10, tokens=250, replacements=3, kills=kills)
    verdict = await Play(plan, tmp_path).run()
    assert verdict.holds, verdict.text()
    assert verdict.readers == 100 and verdict.connections > 100 and verdict.told > verdict.written
