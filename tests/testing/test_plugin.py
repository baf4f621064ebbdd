"""The pytest plugin, in runs of pytest of their own: what it finds, with whom it works, what it costs."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from lastcall import TaskManager
from lastcall.jobs import Context, Jobs
from lastcall.testing import run_jobs, watch_tasks
from tests.frame.floorplan import ROOT

TESTS = """
import asyncio
import pytest

pytestmark = pytest.mark.anyio

@pytest.fixture
def anyio_backend():
    return "asyncio"

async def forever():
    await asyncio.Event().wait()

async def swallow():
    try:
        await forever()
    except BaseException:
        return "as if nothing had been"

async def cancel(task):
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})

class TestWatched:
    async def test_leak(self, no_leaked_tasks):
        self.task = asyncio.create_task(forever(), name="left")

    async def test_swallow(self, no_swallowed_cancels):
        await cancel(asyncio.create_task(swallow(), name="glutton"))

    async def test_both_and_an_error(self, no_leaked_tasks, no_swallowed_cancels):
        task = asyncio.create_task(forever(), name="left")
        await cancel(asyncio.create_task(swallow(), name="glutton"))
        raise ValueError("its own")

async def test_good(no_leaked_tasks, no_swallowed_cancels):
    await cancel(asyncio.create_task(forever()))
    try:
        async with asyncio.timeout(0):
            await forever()
    except TimeoutError:
        pass

async def test_unwatched():
    global kept
    kept = asyncio.create_task(forever())

def test_sync(no_leaked_tasks, no_swallowed_cancels):
    pass
"""


def run_pytest(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "_lastcall_pytest", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": paths, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_leaks_and_swallowed_cancels_are_found(tmp_path: Path) -> None:
    """The three bad tests fail with names and stacks, the others pass."""
    (tmp_path / "test_it.py").write_text(TESTS)
    done = run_pytest("-p", "anyio.pytest_plugin", cwd=tmp_path)
    out = done.stdout
    assert "3 failed, 3 passed" in out, out + done.stderr
    for name in ("test_leak", "test_swallow", "test_both_and_an_error"):
        assert f"FAILED test_it.py::TestWatched::{name}" in out
    assert "a task is still pending: 'left'" in out
    assert "the task 'glutton' (swallow) was cancelled and returned" in out
    assert "ValueError: its own" in out


def test_the_example_passes(tmp_path: Path) -> None:
    """examples/testing_survival.py, as it stands, with every fixture of the plugin."""
    example = (ROOT / "examples" / "testing_survival.py").read_text(encoding="utf-8")
    (tmp_path / "test_orders.py").write_text(example)
    done = run_pytest("-W", "error", "-p", "anyio.pytest_plugin", cwd=tmp_path)
    assert done.stdout.splitlines()[-1].startswith("2 passed"), done.stdout + done.stderr


def test_unused_it_costs_an_empty_module(tmp_path: Path) -> None:
    """A test run that asks for nothing of it has imported nothing of lastcall."""
    (tmp_path / "test_it.py").write_text(
        "import sys\ndef test_it():\n    assert '_lastcall_pytest' in sys.modules\n"
        "    assert not [name for name in sys.modules if name.split('.')[0] in ('lastcall', 'pydantic')]\n"
    )
    done = run_pytest(cwd=tmp_path)
    assert "1 passed" in done.stdout, done.stdout


async def test_our_own_machinery_swallows_nothing() -> None:
    """A manager ends tasks, a job waits and is handed over: nothing looks as if it had swallowed a cancel."""
    async with watch_tasks():
        await _use_everything()


async def _use_everything() -> None:
    async with TaskManager() as manager:
        manager.create_task(asyncio.Event().wait())
        manager.create_task(asyncio.sleep(0))
        manager.begin_shutdown(skip_notice=True)
        manager.force()
    jobs = Jobs("sqlite:///never-opened.db")

    @jobs.task(name="nap")
    async def nap(ctx: Context) -> None:
        await ctx.step(asyncio.sleep, 0, name="first")
        await ctx.sleep(60)

    async with run_jobs(jobs) as run:
        run.drain_at("first")
        job = await nap.submit()
        await run.advance(60)
        assert (await job.status()).final
