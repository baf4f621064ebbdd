"""CPython's own tests of `asyncio.TaskGroup`, from the interpreter's test package, with ours in its place.

Each run is a process of its own: the tests change loops and policies, and warn on purpose.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MODULE = "test.test_asyncio.test_taskgroups"
PROGRAM = Path(__file__).parent / "programs" / "cpython_taskgroups.py"
SOURCE = Path(__file__).parents[2] / "src"
LOOPS = ["asyncio", "uvloop"] + (["eager"] if sys.version_info >= (3, 12) else [])


def need_the_test_package() -> None:
    try:
        found = importlib.util.find_spec(MODULE)
    except ModuleNotFoundError:
        found = None
    if found is None:
        pytest.skip(f"interpreter: it ships no {MODULE}")


def results(loop: str, whose: str) -> dict[str, object]:
    """Run CPython's tests on a loop; what the program says about it."""
    need_the_test_package()
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    done = subprocess.run(
        [sys.executable, str(PROGRAM), loop, whose],
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
    )
    assert done.stdout, done.stderr
    told: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.mark.timeout(120)
@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("loop", LOOPS)
def test_cpythons_own_tests_pass(loop: str) -> None:
    """The interpreter's tests run with our class: all pass, and it really was our class that they tested."""
    told = results(loop, "lastcall")
    assert told["failed"] == []
    assert isinstance(told["ran"], int) and told["ran"] > 30
    assert isinstance(told["groups"], int) and told["groups"] >= told["ran"]
    assert told["skipped"] == []


@pytest.mark.timeout(120)
@pytest.mark.loops("asyncio")
def test_they_notice_a_wrong_task_group() -> None:
    """The same run with a group that keeps its children's errors to itself: CPython's tests fail."""
    told = results("asyncio", "broken")
    assert told["failed"]
