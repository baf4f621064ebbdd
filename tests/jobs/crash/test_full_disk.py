"""A disk that is full in the middle of a run: nothing is lost, and what was done meanwhile is not done again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.program import Program

pytestmark = pytest.mark.slow

# As root, or where anybody may have namespaces of their own, as root of one of these.
MOUNTING = (["unshare", "--mount"], ["unshare", "--map-root-user", "--mount"])


def may_mount(at: Path) -> list[str] | None:
    """How to run a program that may mount a small disk; None: this machine lets us not."""
    probe = f"mount -t tmpfs -o size=64k none '{at}'"
    for how in MOUNTING:
        try:
            if subprocess.run([*how, "sh", "-c", probe], capture_output=True).returncode == 0:
                return how
        except FileNotFoundError:
            return None
    return None


def test_no_process_may_write_any_more(tmp_path: Path) -> None:
    """A quota is reached under a worker, for longer than its lease: submitters hear it, the worker pauses with what it
    holds, and goes on when there is space again."""
    with Program(["-m", "tests.jobs.crash.full_disk", "limit", str(tmp_path), "1"]) as program:
        assert program.wait() == 0
        assert program.out == "held\n"


def test_a_disk_without_space(tmp_path: Path) -> None:
    """The same with two workers on a small disk of its own, full for everybody: nobody takes the other for dead."""
    how = may_mount(tmp_path)
    if how is None:
        pytest.skip("no small disk can be mounted here: needs Linux, and root or user namespaces")
    python = [sys.executable, "-m", "tests.jobs.crash.full_disk", "tmpfs", str(tmp_path), "2"]
    exec_in_namespace = f"import os; os.execvp({how[0]!r}, {[*how, *python]!r})"
    with Program(["-c", exec_in_namespace]) as program:
        assert program.wait() == 0
        assert program.out == "held\n"
        assert not os.path.ismount(tmp_path / "disk")
