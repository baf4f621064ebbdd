"""A real process whose output can be waited for, line by line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

ROOT = Path(__file__).resolve().parents[2]

WAIT_SECONDS = 60.0  # an upper bound for every wait; the waits themselves end with what they wait for


class Program:
    """A Python process with its two outputs. Leaving the block kills it if it still runs.

    `keep`: file descriptors it inherits. `stderr`: one that takes the place of its second output.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path = ROOT,
        env: Mapping[str, str] | None = None,
        keep: Sequence[int] = (),
        stderr: int = subprocess.PIPE,
    ) -> None:
        paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
        self._changed = threading.Condition()
        self._text = {"out": "", "err": ""}
        self._process = subprocess.Popen(
            [sys.executable, *command],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", "COLUMNS": "200", **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
            pass_fds=keep,
        )
        both = {"out": self._process.stdout, "err": self._process.stderr}
        pipes = {name: pipe for name, pipe in both.items() if pipe is not None}
        self._readers = [
            threading.Thread(target=self._read, args=(name, pipe), daemon=True)
            for name, pipe in pipes.items()
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._end()
        if error is not None:
            error.add_note(f"standard output:\n{self.out}\nstandard error:\n{self.err}")

    @property
    def out(self) -> str:
        return self._text["out"]

    @property
    def err(self) -> str:
        return self._text["err"]

    def wait_for(self, pattern: str, *, on: str = "err") -> re.Match[str]:
        """Wait until `pattern` is found in the output; fail if the process ends without it."""
        with self._changed:
            found = self._changed.wait_for(
                lambda: re.search(pattern, self._text[on]) or not any(r.is_alive() for r in self._readers),
                WAIT_SECONDS,
            )
        match = re.search(pattern, self._text[on])
        assert match is not None, (
            f"{pattern!r} was not printed ({'the process ended' if found else 'time is up'})"
        )
        return match

    @property
    def code(self) -> int | None:
        return self._process.poll()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self._process.pid, number)

    def wait(self) -> int:
        """Wait for the end and return the exit code; a process ended by a signal has a negative one."""
        code = self._process.wait(WAIT_SECONDS)
        self._end()
        return code

    def _end(self) -> None:
        self._process.wait(WAIT_SECONDS)
        for reader in self._readers:
            reader.join(WAIT_SECONDS)

    def _read(self, name: str, pipe: IO[bytes]) -> None:
        with pipe:
            while chunk := os.read(pipe.fileno(), 1 << 16):
                with self._changed:
                    self._text[name] += chunk.decode("utf-8", "replace")
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()
