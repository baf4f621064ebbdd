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
ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
LOOPS = ["asyncio", "uvloop"] + (["eager"] if sys.version_info >= (3, 12) else [])


def need_the_test_package() -> None:
    try:
        found = importlib.util.find_spec(MODULE)
    except ModuleNotFoundError:
        found = None
    if found is None:
        pytest.skip(f"interpreter: it ships no {MODULE}")


def begin(loop: str, whose: str) -> subprocess.Popen[str]:
    """Begin to run CPython's tests on a loop."""
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), loop, whose],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (SOURCE, ROOT)))},
    )


def result(process: subprocess.Popen[str]) -> dict[str, object]:
    """What the program says about it."""
    with process:
        try:
            out, errors = process.communicate(timeout=100)
        finally:
            process.kill()
    assert out, errors
    told: dict[str, object] = json.loads(out.splitlines()[-1])
    return told


@pytest.mark.timeout(120)
def test_cpythons_own_tests_pass() -> None:
    """The interpreter's tests run with our class on each loop: all pass, and it really was our class that they tested.

    All loops at the same time, because these tests mostly sleep.
    """
    need_the_test_package()
    if "uvloop" in LOOPS:
        pytest.importorskip("uvloop")
    processes = {loop: begin(loop, "lastcall") for loop in LOOPS}
    for loop, told in {loop: result(process) for loop, process in processes.items()}.items():
        assert told["failed"] == [], loop
        assert isinstance(told["ran"], int) and told["ran"] > 30
        assert isinstance(told["groups"], int) and told["groups"] >= told["ran"]
        assert told["skipped"] == []


@pytest.mark.timeout(120)
def test_they_notice_a_wrong_task_group() -> None:
    """The same run with a group that keeps its children's errors to itself: CPython's tests fail."""
    need_the_test_package()
    told = result(begin("virtual", "broken"))
    assert told["failed"]
