"""Little programs as real processes: lines are waited for, waits are bounded, nothing outlives the test."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "tests" / "core" / "programs"

# Generous: a machine that runs other things must not fail a test, and a hang still ends.
PATIENCE_SECONDS = 30.0


class Program:
    """`tests/core/programs/<name>.py <arguments>` with pipes on stdin, stdout and stderr.

    with Program("under_run", "drains") as program:
        program.expect("ready")
        program.send(signal.SIGTERM)
        assert program.wait() == 0
    """

    def __init__(self, name: str, *arguments: str, **environment: str) -> None:
        path = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, "-X", "dev", str(PROGRAMS / f"{name}.py"), *arguments],
            env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.lines: list[str] = []
        self._errors: list[str] = []
        assert self._process.stdout is not None and self._process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read_lines, args=(self._process.stdout,), daemon=True),
            threading.Thread(target=self._read_errors, args=(self._process.stderr,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._kill_tree()
        if error is not None:
            error.add_note(f"stdout: {self.lines}\nstderr:\n{self.errors}")

    @property
    def errors(self) -> str:
        """What it has written to stderr so far; all of it once it has been waited for."""
        return "".join(self._errors)

    def ends_after(self, signum: signal.Signals, *, seconds: float) -> bool:
        """Send a signal; whether the program has ended so many seconds later, for signals that must be repeated."""
        self.send(signum)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def expect(self, line: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until it prints this line; lines before it are kept in `lines`."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                got = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no line {line!r} within {seconds:g} s") from None
            if got is None:
                raise AssertionError(f"the program ended without the line {line!r}")
            self.lines.append(got)
            if got == line:
                return

    def tell(self, line: str) -> None:
        """Write a line to its stdin."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def send(self, signum: signal.Signals) -> None:
        """Send it a real signal."""
        self._process.send_signal(signum)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Its exit code (negative: died of that signal); all its output has been read then."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the program still runs after {seconds:g} s") from None
        for reader in self._readers:
            reader.join(PATIENCE_SECONDS)
        while (line := self._queue.get(timeout=PATIENCE_SECONDS)) is not None:
            self.lines.append(line)
        return code

    def _read_lines(self, pipe: IO[str]) -> None:
        for line in pipe:
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def _read_errors(self, pipe: IO[str]) -> None:
        for line in pipe:
            self._errors.append(line)

    def _kill_tree(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE_SECONDS)
        for reader in self._readers:
            reader.join(PATIENCE_SECONDS)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
