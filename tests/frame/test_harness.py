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
    events: list[tuple[str, str]]  # (event, test name with its file: "test_leaks::test_clean[asyncio]")

    def results(self, file: str) -> dict[str, str]:
        """How the tests of one file ended."""
        found = [(test.partition("::"), event) for event, test in self.events if event != "began"]
        return {name: event for (where, _, name), event in found if where == file}


class Pytest:
    """Runs pytest on pieces of source with the project's conftest and settings."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, **sources: str) -> Outcome:
        return self.with_variables({}, **sources)

    def with_variables(self, variables: dict[str, str], **sources: str) -> Outcome:
        """One run over all of them: to start pytest takes far longer than these tests do."""
        for name, source in sources.items():
            (self._folder / f"{name}.py").write_text("import asyncio, pytest\n" + textwrap.dedent(source))
        record = self._folder / "results.jsonl"
        env = {name: value for name, value in os.environ.items() if not name.startswith("LASTCALL_")}
        env |= {"PYTHONPATH": str(ROOT), "LASTCALL_RESULTS": str(record), **variables}
        env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = (
            "1"  # half of the start, and what is tested is our own conftest
        )
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", str(ROOT / "pyproject.toml")]
            + ["--rootdir", str(self._folder), "-p", "no:cacheprovider", *(f"{name}.py" for name in sources)],
            cwd=self._folder,
            env=env,
            capture_output=True,
            text=True,
        )
        lines = map(json.loads, record.read_text().splitlines()) if record.exists() else []
        events = [(line["event"], line["test"].replace(".py::", "::")) for line in lines]
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

DESTROYED = """
@pytest.mark.loops("asyncio", "uvloop")
async def test_destroyed():
    async def forever():
        await asyncio.get_running_loop().create_future()
    asyncio.create_task(forever())
    await asyncio.sleep(0)
    import gc; gc.collect()
"""

EXPECTED = """
async def test_expected(loop_errors):
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await asyncio.sleep(0.01)
    assert isinstance(loop_errors[0]["exception"], ZeroDivisionError)
"""

FLAVOURS = """
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

HANG = """
@pytest.mark.timeout(0.2)
@pytest.mark.loops("asyncio", "uvloop")
async def test_hang():
    await asyncio.Event().wait()  # here

def test_after():
    pass
"""


def default_loops() -> list[str]:
    return ["asyncio", "uvloop"] + (["eager"] if sys.version_info >= (3, 12) else [])


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """What becomes of all that can be told in one run."""
    run = Pytest(tmp_path_factory.mktemp("cases"))
    return run(
        test_leaks=LEAKS,
        test_destroyed=DESTROYED,
        test_expected=EXPECTED,
        test_flavours=FLAVOURS,
        test_hang=HANG,
    )


def test_what_is_left_behind_fails_the_test(outcome: Outcome) -> None:
    """A test that passes its own assertions but leaves something behind fails, and says what."""
    results = outcome.results("test_leaks")
    assert {(test, event) for test, event in results.items() if event != "failed"} == {
        (f"test_clean[{loop}]", "passed") for loop in default_loops()
    }, outcome.output
    assert {test.partition("[")[0] for test, event in results.items() if event == "failed"} == {
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


def test_a_destroyed_task_is_noticed(outcome: Outcome) -> None:
    """A pending task that only a cycle keeps alive is destroyed by the collector, which asyncio reports."""
    assert outcome.results("test_destroyed") == {
        "test_destroyed[asyncio]": "failed",
        "test_destroyed[uvloop]": "failed",
    }, outcome.output
    assert "destroyed but it is pending" in outcome.output


def test_expected_loop_errors_are_collected(outcome: Outcome) -> None:
    """A test that asks for `loop_errors` gets the calls of the loop's exception handler, and no failure."""
    expected = {f"test_expected[{loop}]": "passed" for loop in default_loops()}
    assert outcome.results("test_expected") == expected, outcome.output


def test_each_loop_is_really_used(outcome: Outcome) -> None:
    """Flavours are loops, not names; a marker restricts them, a synchronous test may have their factory."""
    each = ("test_flavour", "test_factory", "TestInClass::test_method")
    expected = {f"{name}[{loop}]" for name in each for loop in default_loops()}
    assert outcome.results("test_flavours") == dict.fromkeys(
        expected | {"test_restricted[asyncio]"}, "passed"
    ), outcome.output


def test_an_async_hang_ends_with_the_stacks_of_its_tasks(outcome: Outcome) -> None:
    """A coroutine that waits for ever fails after its limit and says where it waits; the run goes on."""
    assert outcome.results("test_hang") == {
        "test_hang[asyncio]": "failed",
        "test_hang[uvloop]": "failed",
        "test_after": "passed",
    }
    assert "await asyncio.Event().wait()  # here" in outcome.output
    assert "still not done after 0.2 s" in outcome.output


def test_an_unknown_loop_is_an_error(run: Pytest) -> None:
    """A misspelt flavour does not quietly run nothing."""
    outcome = run(test_case='@pytest.mark.loops("asynco")\nasync def test_x():\n    pass')
    assert outcome.code != 0
    assert "no such event loop: asynco" in outcome.output


def test_a_blocked_thread_ends_with_stacks(run: Pytest) -> None:
    """A test that blocks the whole interpreter ends the run with stacks, and is known to have begun."""
    outcome = run(
        test_case="""
        import threading

        @pytest.mark.timeout(-29.5)  # half a second with the margin
        def test_stuck():
            threading.Event().wait()
        """
    )
    assert outcome.code != 0
    assert outcome.events == [("began", "test_case::test_stuck")]
    assert "in test_stuck" in outcome.output


SKIPS = """
def test_plain():
    pytest.skip('no server')

def test_old():
    pytest.skip('interpreter: too old')
"""
MISSING = "pytest.importorskip('no_such_module')"


def test_ci_refuses_skips(run: Pytest) -> None:
    """In CI a missing server or library is a failure; an interpreter that cannot is not."""
    outcome = run.with_variables({"LASTCALL_CI": "1"}, test_skips=SKIPS)
    assert outcome.results("test_skips") == {"test_plain": "failed", "test_old": "skipped"}
    assert "this was: Skipped: no server" in outcome.output
    assert run.with_variables({"LASTCALL_CI": "1"}, test_missing=MISSING).code != 0


def test_elsewhere_skips_are_skips(run: Pytest) -> None:
    """On a developer's machine a skip is counted, and no failure."""
    outcome = run(test_skips=SKIPS, test_missing=MISSING)
    assert outcome.code == 0
    assert set(outcome.results("test_skips").values()) == {"skipped"}
