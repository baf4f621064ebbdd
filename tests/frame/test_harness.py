"""The harness catches what it is there to catch: each case is a test file, run by a pytest of its own."""

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.frame.floorplan import ROOT


@dataclass
class Outcome:
    """What a run of pytest came to."""

    code: int
    output: str
    events: list[tuple[str, str]]  # (event, test name)

    def results(self) -> dict[str, str]:
        return {test: event for event, test in self.events if event != "began"}


class Pytest:
    """Runs pytest on a piece of source with the project's conftest and settings."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, source: str, *arguments: str, **variables: str) -> Outcome:
        (self._folder / "test_case.py").write_text("import asyncio, pytest\n" + textwrap.dedent(source))
        record = self._folder / "results.jsonl"
        env = {name: value for name, value in os.environ.items() if not name.startswith("LASTCALL_")}
        env |= {"PYTHONPATH": str(ROOT), "LASTCALL_RESULTS": str(record), **variables}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", str(ROOT / "pyproject.toml")]
            + ["--rootdir", str(self._folder), "-p", "no:cacheprovider", *arguments, "test_case.py"],
            cwd=self._folder,
            env=env,
            capture_output=True,
            text=True,
        )
        lines = map(json.loads, record.read_text().splitlines()) if record.exists() else []
        events = [(line["event"], line["test"].rpartition("::")[2]) for line in lines]
        return Outcome(done.returncode, done.stdout + done.stderr, events)


@pytest.fixture
def run(tmp_path: Path) -> Pytest:
    return Pytest(tmp_path)


LEAKS = """
async def test_pending():
    asyncio.get_running_loop().kept = asyncio.create_task(asyncio.sleep(60))

async def test_never_awaited():
    asyncio.sleep(1)

async def test_lost_exception():
    asyncio.get_running_loop().create_future().set_exception(OSError('lost'))

async def test_unclosed():
    open(__file__)

async def test_callback():
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await asyncio.sleep(0)

async def test_clean():
    await asyncio.sleep(0)
"""


def test_what_is_left_behind_fails_the_test(run: Pytest) -> None:
    """A test that passes its own assertions but leaves something behind fails, and says what."""
    outcome = run(LEAKS)
    results = outcome.results()
    passed = {test.partition("[")[0] for test, event in results.items() if event == "passed"}
    failed = {test.partition("[")[0] for test, event in results.items() if event == "failed"}
    assert passed == {"test_clean"}, outcome.output
    assert failed == {
        "test_pending",
        "test_never_awaited",
        "test_lost_exception",
        "test_unclosed",
        "test_callback",
    }
    for said in (
        "a task is still pending",
        "was never awaited",
        "never retrieved",
        "unclosed file",
        "in callback",
    ):
        assert said in outcome.output


def test_a_destroyed_task_is_noticed(run: Pytest) -> None:
    """A pending task that only a cycle keeps alive is destroyed by the collector, which asyncio reports."""
    outcome = run(
        """
        @pytest.mark.loops("asyncio", "uvloop")
        async def test_destroyed():
            async def forever():
                await asyncio.get_running_loop().create_future()
            asyncio.create_task(forever())
            await asyncio.sleep(0)
            import gc; gc.collect()
        """
    )
    assert set(outcome.results().values()) == {"failed"}, outcome.output
    assert "destroyed but it is pending" in outcome.output


def test_expected_loop_errors_are_collected(run: Pytest) -> None:
    """A test that asks for `loop_errors` gets the calls of the loop's exception handler, and no failure."""
    outcome = run(
        """
        async def test_expected(loop_errors):
            asyncio.get_running_loop().call_soon(lambda: 1 / 0)
            await asyncio.sleep(0.01)
            assert isinstance(loop_errors[0]["exception"], ZeroDivisionError)
        """
    )
    assert outcome.code == 0, outcome.output


def test_each_loop_is_really_used(run: Pytest) -> None:
    """Flavours are loops, not names; a marker restricts them, a synchronous test may have their factory."""
    outcome = run(
        """
        async def test_flavour(loop_flavour):
            loop = asyncio.get_running_loop()
            assert ("uvloop" in type(loop).__module__) == (loop_flavour == "uvloop")
            assert (loop.get_task_factory() is not None) == (loop_flavour == "eager")

        @pytest.mark.loops("asyncio")
        async def test_restricted():
            pass

        def test_factory(loop_factory):
            loop_factory().close()

        class TestInClass:
            async def test_method(self, tmp_path):
                assert tmp_path.is_dir()
        """
    )
    loops = {"asyncio", "uvloop"} | ({"eager"} if sys.version_info >= (3, 12) else set())
    expected = {f"test_{name}[{loop}]" for name in ("flavour", "factory", "method") for loop in loops}
    assert outcome.results() == dict.fromkeys(expected | {"test_restricted[asyncio]"}, "passed"), (
        outcome.output
    )


def test_an_unknown_loop_is_an_error(run: Pytest) -> None:
    """A misspelt flavour does not quietly run nothing."""
    outcome = run('@pytest.mark.loops("asynco")\nasync def test_x():\n    pass')
    assert outcome.code != 0
    assert "no such event loop: asynco" in outcome.output


def test_an_async_hang_ends_with_the_stacks_of_its_tasks(run: Pytest) -> None:
    """A coroutine that waits for ever fails after its limit and says where it waits; the run goes on."""
    outcome = run(
        """
        @pytest.mark.timeout(0.2)
        @pytest.mark.loops("asyncio", "uvloop")
        async def test_hang():
            await asyncio.Event().wait()  # here

        def test_after():
            pass
        """
    )
    assert outcome.results() == {
        "test_hang[asyncio]": "failed",
        "test_hang[uvloop]": "failed",
        "test_after": "passed",
    }
    assert "await asyncio.Event().wait()  # here" in outcome.output
    assert "still not done after 0.2 s" in outcome.output


def test_a_blocked_thread_ends_with_stacks(run: Pytest) -> None:
    """A test that blocks the whole interpreter ends the run with stacks, and is known to have begun."""
    outcome = run(
        """
        import threading

        @pytest.mark.timeout(-29.5)  # half a second with the margin
        def test_stuck():
            threading.Event().wait()
        """
    )
    assert outcome.code != 0
    assert outcome.events == [("began", "test_stuck")]
    assert "in test_stuck" in outcome.output


SKIPS = """
def test_plain():
    pytest.skip('no server')

def test_old():
    pytest.skip('interpreter: too old')
"""


def test_ci_refuses_skips(run: Pytest) -> None:
    """In CI a missing server is a failure; an interpreter that cannot is not."""
    outcome = run(SKIPS, LASTCALL_CI="1")
    assert outcome.results() == {"test_plain": "failed", "test_old": "skipped"}
    assert "this was: Skipped: no server" in outcome.output
    assert run("pytest.importorskip('no_such_module')", LASTCALL_CI="1").code != 0


def test_elsewhere_skips_are_skips(run: Pytest) -> None:
    """On a developer's machine a skip is counted, and no failure."""
    outcome = run(SKIPS)
    assert outcome.code == 0
    assert set(outcome.results().values()) == {"skipped"}
