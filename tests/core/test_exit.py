"""The exit guard: a process that was told to stop ends, with its code, and one that was let off lives on."""

import os
import subprocess
import sys

import pytest

from tests.support.processes import PATIENCE_SECONDS, PROGRAMS, ROOT, Program


def test_it_ends_a_process_that_clings() -> None:
    """The main thread waits for ever; the guard ends it with its code and says why."""
    with Program("guard", "armed") as program:
        assert program.wait() == 42
        assert "it clings" in program.errors and "42" in program.errors


@pytest.mark.parametrize("what", ["disarmed", "rearmed_later", "disarmed_before_armed_for_ever"])
def test_it_lets_live(what: str) -> None:
    """Disarmed, or armed anew with a later time: the earlier time passes and nothing happens."""
    with Program("guard", what) as program:
        assert program.wait() == 0
        assert program.lines == ["alive"]


def test_arming_again_replaces_time_and_code() -> None:
    """The second, sooner time counts, with its own exit code."""
    with Program("guard", "rearmed_sooner") as program:
        assert program.wait() == 43
        assert "the second time" in program.errors and "the first time" not in program.errors


def test_it_can_be_armed_after_it_was_disarmed() -> None:
    """Disarming once does not make the next arming fire at once, nor never."""
    with Program("guard", "disarmed_before_armed") as program:
        assert program.wait() == 43
        assert program.lines == ["alive"]


def test_it_flushes_what_was_written() -> None:
    """Output that still sat in a buffer is not lost although nothing else is cleaned up."""
    with Program("guard", "flushes", PYTHONUNBUFFERED="") as program:
        assert program.wait() == 42
        assert program.lines == ["buffered"]


def test_a_stuck_pipe_does_not_stop_it() -> None:
    """Whoever reads its log has stopped reading, so that every write blocks; the process ends all the same."""
    command = [sys.executable, str(PROGRAMS / "guard.py"), "stuck_pipe"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        assert process.wait(PATIENCE_SECONDS) == 42
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def test_it_keeps_no_process() -> None:
    """Armed for an hour, it does not keep a process that ends by itself, nor change its exit code."""
    with Program("guard", "at_exit") as program:
        assert program.wait() == 3
