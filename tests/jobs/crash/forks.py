"""Processes within milliseconds: a server that has imported everything and forks; and its handle for tests.

The server has no loop and no thread, so forking it is safe. It learns of a child's end by a pipe that only that child
holds. When its own end of the line breaks, because the test run ended however, it kills what it has forked.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .programs import Settings

ROOT = Path(__file__).resolve().parents[3]

PROGRAMS = "tests.jobs.crash.programs"

# An upper bound for every wait: a hang still ends.
PATIENCE_SECONDS = 60.0


# --- in the test ---------------------------------------------------------------------------------------


class Child:
    """A forked process."""

    def __init__(self, call: str, pid: int) -> None:
        self._call = call
        self.pid = pid
        self.code: int | None = None
        self.ended = threading.Event()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if not self.ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Its exit code; negative if a signal ended it."""
        assert self.ended.wait(seconds), f"{self._call} ({self.pid}) still runs after {seconds:g} s"
        assert self.code is not None
        return self.code


class Nursery:
    """The server's handle. Leaving the block kills whatever still runs. `modules`: what it imports beforehand."""

    def __init__(self, *modules: str) -> None:
        self._modules = modules or (PROGRAMS,)

    def __enter__(self) -> Nursery:
        paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.jobs.crash.forks", *self._modules],
            cwd=ROOT,
            start_new_session=True,  # Ctrl-C is the player's business; this one hears of its end
            env={**os.environ, "PYTHONPATH": paths},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._changed = threading.Condition()
        self._born: list[int] = []
        self._children: dict[int, Child] = {}
        self._spawning = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(PATIENCE_SECONDS)
        self._reader.join(PATIENCE_SECONDS)
        self._server.stdout.close()

    def spawn(self, settings: Settings) -> Child:
        """Start one of the programs here. From any thread."""
        return self.fork(f"{PROGRAMS}:main_with", settings._asdict(), settings.log)

    def fork(self, call: str, given: dict[str, Any], log: str) -> Child:
        """Start a process that calls `module:function` with this; its output goes to the file `log`."""
        assert self._server.stdin is not None
        with self._spawning:
            order = {"call": call, "given": given, "log": log}
            self._server.stdin.write(json.dumps(order).encode() + b"\n")
            self._server.stdin.flush()
            with self._changed:
                assert self._changed.wait_for(lambda: self._born, PATIENCE_SECONDS), "nothing was forked"
                child = Child(call, self._born.pop())
                self._children[child.pid] = child
                self._changed.notify_all()
        return child

    def _read(self) -> None:
        assert self._server.stdout is not None
        for text in self._server.stdout:
            pid, code = json.loads(text)
            if code is None:
                with self._changed:
                    self._born.append(pid)
                    self._changed.notify_all()
            else:
                self._end(pid, code)

    def _end(self, pid: int, code: int) -> None:
        with self._changed:
            # It may end before `spawn` has taken it down.
            self._changed.wait_for(lambda: pid in self._children, PATIENCE_SECONDS)
            child = self._children.pop(pid)
        child.code = code
        child.ended.set()


# --- in the server -------------------------------------------------------------------------------------


def serve(modules: Sequence[str]) -> None:
    """Fork what stdin asks for; tell on stdout whom, and how they ended."""
    for module in modules:
        import_module(module)
    alive: dict[int, int] = {}  # the pipe by which the end is heard of, and the pid
    waiting = b""
    try:
        while True:
            ready, _, _ = select.select([0, *alive], [], [])
            for fd in ready:
                if fd != 0:
                    _tell_end(fd, alive.pop(fd))
                    continue
                waiting += (more := os.read(0, 65536))
                if not more:
                    return
                *orders, waiting = waiting.split(b"\n")
                for order in orders:
                    end, pid = _fork(json.loads(order))
                    alive[end] = pid
                    _tell(pid, None)
    finally:
        for end, pid in alive.items():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(end)


def _fork(order: dict[str, Any]) -> tuple[int, int]:
    end, held = os.pipe()
    pid = os.fork()
    if pid == 0:
        _live(**order)
    os.close(held)
    return end, pid


def _live(call: str, given: dict[str, Any], log: str) -> None:
    code = 70
    try:
        output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        module, _, function = call.partition(":")
        getattr(import_module(module), function)(**given)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _tell_end(end: int, pid: int) -> None:
    os.close(end)
    _, status = os.waitpid(pid, 0)
    _tell(pid, os.waitstatus_to_exitcode(status))


def _tell(pid: int, code: int | None) -> None:
    os.write(1, json.dumps([pid, code]).encode() + b"\n")


if __name__ == "__main__":
    serve(sys.argv[1:])
