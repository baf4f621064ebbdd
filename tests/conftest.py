"""How the tests run: async tests on every loop, nothing left behind, no hang without stacks, no silent skip.

- `async def test_...` runs once per loop: asyncio, uvloop, and eager tasks from Python 3.12 on.
  LASTCALL_LOOPS (names with commas; `uvloop:tests/core` for one folder) changes the list,
  `@pytest.mark.loops("asyncio")` chooses for one test,
  and `"virtual"` is the loop whose clock jumps. Synchronous tests may ask for `loop_flavour` or
  `loop_factory` and are repeated likewise.
- A test may take `@pytest.mark.timeout(seconds)`; past that an async test fails with the stacks of its tasks.
  What does not even end then is ended with the stacks of all threads, and the run with it.
- With LASTCALL_CI=1 a skip is a failure, unless its reason begins with "interpreter:".
"""

import faulthandler
import functools
import gc
import inspect
import os
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.support.loops import (
    FACTORIES,
    TIMEOUT_SECONDS,
    LoopErrors,
    LoopFactory,
    default_flavours,
    flavours_for,
    run_checked,
    why_missing,
)
from tests.support.results import VARIABLE as RESULTS_VARIABLE
from tests.support.results import ResultsFile

# What a test that ignores its own limit gets on top, to end and to tell what it was doing.
HARD_LIMIT_MARGIN_SECONDS = 30.0

_stderr_key = pytest.StashKey[int]()

# A machine that runs two other things must not fail a property.
settings.register_profile("lastcall", deadline=None, print_blob=True)
settings.load_profile("lastcall")


def pytest_configure(config: pytest.Config) -> None:
    # Duplicated while pytest does not capture, so that the stacks of a hang reach the person who waits.
    config.stash[_stderr_key] = os.dup(2)
    # A shell that starts us in the background makes us, and every server we start, deaf to Ctrl-C.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Taken out of the environment: a test that runs pytest itself must not be counted twice.
    results = os.environ.pop(RESULTS_VARIABLE, None)
    if results:
        config.pluginmanager.register(ResultsFile(Path(results)), "lastcall-results")


def pytest_unconfigure(config: pytest.Config) -> None:
    os.close(config.stash[_stderr_key])


def pytest_collection_finish() -> None:
    # Every async test ends with a full collection; what was imported so far need not be walked each time.
    gc.collect()
    gc.freeze()


# --- async tests on every loop ---


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: pytest.Module | pytest.Class, name: str, obj: object) -> None:
    if collector.istestfunction(obj, name) and inspect.iscoroutinefunction(obj):
        pytest.mark.usefixtures("loop_flavour")(obj)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "loop_flavour" not in metafunc.fixturenames:
        return
    chosen = metafunc.definition.get_closest_marker("loops")
    if chosen is not None:
        names = list(chosen.args)
    else:
        spec = os.environ.get("LASTCALL_LOOPS", "")
        names = flavours_for(metafunc.definition.nodeid, spec) or default_flavours()
    unknown = set(names) - set(FACTORIES)
    if unknown:
        raise pytest.UsageError(f"{metafunc.definition.nodeid}: no such event loop: {', '.join(unknown)}")
    metafunc.parametrize("loop_flavour", [_flavour_param(name) for name in names], indirect=True)


def _flavour_param(name: str) -> Any:
    missing = why_missing(name)
    return pytest.param(name, id=name, marks=[pytest.mark.skip(reason=missing)] if missing else [])


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    run_checked(
        functools.partial(pyfuncitem.obj, **wanted),
        pyfuncitem.funcargs["loop_flavour"],
        timeout=_limit_seconds(pyfuncitem),
        loop_errors=pyfuncitem.funcargs.get("loop_errors"),
    )
    return True


@pytest.fixture
def loop_flavour(request: pytest.FixtureRequest) -> str:
    """The name of the loop this test runs on."""
    return str(request.param)


@pytest.fixture
def loop_factory(loop_flavour: str) -> LoopFactory:
    """What makes the loop of this flavour, for a synchronous test that runs one itself."""
    return FACTORIES[loop_flavour]


@pytest.fixture
def loop_errors() -> LoopErrors:
    """Collects the calls of the loop's exception handler, which otherwise fail the test."""
    return []


# --- no hang without stacks ---


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    seconds = _limit_seconds(item) + HARD_LIMIT_MARGIN_SECONDS
    # Not a Python thread: it fires even while C code holds the interpreter, and no test sees it.
    faulthandler.dump_traceback_later(seconds, exit=True, file=item.config.stash[_stderr_key])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _limit_seconds(item: pytest.Item) -> float:
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0]) if marker is not None else TIMEOUT_SECONDS


# --- no silent skip ---


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _refuse_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _refuse_skip((yield))


def _refuse_skip(report: Any) -> Any:
    if os.environ.get("LASTCALL_CI") != "1" or not report.skipped or hasattr(report, "wasxfail"):
        return report
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not reason.removeprefix("Skipped: ").startswith("interpreter:"):
        report.outcome = "failed"
        report.longrepr = f"with LASTCALL_CI=1 nothing is skipped, and this was: {reason}"
    return report
