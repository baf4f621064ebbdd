"""Real processes with a queue are stopped by real signals, and killed: what becomes of their runs."""

import signal
from pathlib import Path

import pytest

from lastcall.agents import AgentQueue, RunStatus
from lastcall.jobs import Jobs
from tests.agents.program import STEPS, Worker
from tests.cli.program import Program

pytestmark = [pytest.mark.loops("asyncio"), pytest.mark.slow]

PROGRAM = ["-m", "tests.agents.program"]
ANSWER = " ".join(str(number) for number in range(1, STEPS + 1))
TEXT = "".join(f"{number}. " for number in range(1, STEPS + 1))


def effects(folder: Path) -> list[str]:
    return (folder / "effects").read_text().splitlines()


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGKILL])
async def test_a_durable_run_goes_on_where_it_was(tmp_path: Path, stop: signal.Signals) -> None:
    """
    1. A run of six steps, each of which writes; its worker is stopped, or killed, in the middle of the third.
    2. Another worker is started.
    Result: the answer is whole; no finished step was done again, a stop repeats none, a kill the third; readers that
    follow the rule have the text once.
    """
    database = f"sqlite:///{tmp_path}/jobs.db"
    async with Jobs(database) as jobs:
        queue = AgentQueue(Worker(str(tmp_path)), jobs=jobs)
        run = await queue.submit("a")
        with Program([*PROGRAM, "durable", database, str(tmp_path)]) as first:
            first.wait_for("did a 3", on="out")
            first.signal(stop)
            assert first.wait() == (-signal.SIGKILL if stop is signal.SIGKILL else 0)
        assert await run.status() in (RunStatus.PENDING, RunStatus.RUNNING)
        with Program([*PROGRAM, "durable", database, str(tmp_path)]) as second:
            assert await run.result(timeout=60) == ANSWER
            second.signal(signal.SIGTERM)
            assert second.wait() == 0
        repeated = ["a 3"] if stop is signal.SIGKILL else []
        assert sorted(effects(tmp_path)) == sorted([*(f"a {n}" for n in range(1, STEPS + 1)), *repeated])
        assert await run.text() == TEXT
        assert "Traceback" not in first.err + second.err


async def test_what_waits_in_the_store_survives_everybody(tmp_path: Path) -> None:
    """Prompts are submitted and cancelled while no worker is there; one that comes later runs what is left."""
    database = f"sqlite:///{tmp_path}/jobs.db"
    async with Jobs(database) as jobs:
        queue = AgentQueue(Worker(str(tmp_path)), jobs=jobs)
        runs = [await queue.submit(f"p{number}") for number in range(3)]
        await runs[1].cancel()
    async with Jobs(database) as jobs:
        queue = AgentQueue(Worker(str(tmp_path)), jobs=jobs)
        assert [info.status for info in await queue.runs()] == ["pending", "cancelled", "pending"]
        with Program([*PROGRAM, "durable", database, str(tmp_path)]) as worker:
            results = [await queue.run(runs[n].id).result(timeout=60) for n in (0, 2)]
            worker.signal(signal.SIGTERM)
            assert worker.wait() == 0
        assert results == [ANSWER, ANSWER]
        assert not [effect for effect in effects(tmp_path) if effect.startswith("p1")]


def test_a_queue_in_memory_is_stopped_by_its_signal(tmp_path: Path) -> None:
    """SIGTERM in the middle: the two that run finish, the three that wait never begin, and each is told its fate."""
    with Program([*PROGRAM, "memory", str(tmp_path)]) as program:
        program.wait_for("did p1 2", on="out")
        program.signal(signal.SIGTERM)
        program.wait()
    for number in (0, 1):
        assert f"p{number}: completed None {TEXT!r}" in program.out
    for number in (2, 3, 4):
        assert f"p{number}: cancelled shutdown ''" in program.out
    assert {effect.split()[0] for effect in effects(tmp_path)} == {"p0", "p1"}
    assert "Traceback" not in program.err
