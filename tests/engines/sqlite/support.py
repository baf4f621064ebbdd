"""Engines on one file, direct looks into that file, and little programs as real processes."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from types import TracebackType
from typing import Any

from lastcall.engines.sqlite import SqliteEngine
from lastcall.engines.sqlite._store import Store, Verb, each

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = Path(__file__).with_name("program.py")
PATIENCE_SECONDS = 30.0


@asynccontextmanager
async def opened(path: Path, **options: Any) -> AsyncIterator[SqliteEngine]:
    """An engine that does not sync, because no machine loses its power here."""
    engine = SqliteEngine(str(path), **{"synchronous": "off", **options})
    await engine.open()
    try:
        yield engine
    finally:
        await engine.close()


async def inside(engine: SqliteEngine, action: Callable[[Store], Any], *, alone: bool = True) -> Any:
    """Do something in the writer thread, in a transaction, by its own connection."""
    return await engine._write(Verb(3, each(lambda store, _: action(store)), alone=alone), None)


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for it, within reason."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE_SECONDS} s for {what}"
        await asyncio.sleep(0.002)


def query(path: Path, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """What a connection of one's own sees in the file."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement, values).fetchall()


def is_sound(path: Path) -> bool:
    return query(path, "PRAGMA integrity_check") == [("ok",)]


class Program:
    """`program.py <arguments>` as a process: told by lines, tells by lines, ends with the block."""

    def __init__(self, *arguments: object, wrapper: tuple[str, ...] = (), program: Path = PROGRAM) -> None:
        path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
        self.process = subprocess.Popen(
            [*wrapper, sys.executable, "-X", "dev", str(program), *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        self._rest = b""

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.communicate()

    @property
    def pid(self) -> int:
        return self.process.pid

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())

    def line(self) -> str:
        """The next line it writes."""
        assert self.process.stdout is not None and self.process.stderr is not None
        deadline = time.monotonic() + PATIENCE_SECONDS
        while b"\n" not in self._rest:
            left = deadline - time.monotonic()
            if not select.select([self.process.stdout], [], [], max(0.0, left))[0]:
                raise AssertionError(f"no line within {PATIENCE_SECONDS} s")
            read = os.read(self.process.stdout.fileno(), 65536)
            if not read:
                raise AssertionError(f"it ended: {self.process.stderr.read().decode()}")
            self._rest += read
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def expect(self, line: str) -> None:
        found = self.line()
        assert found == line, found

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> str:
        """SIGKILL; what it had written until then and nobody has read."""
        self.process.kill()
        output, _ = self.process.communicate()
        return (self._rest + output).decode()

    def end(self) -> None:
        """It ends by itself, cleanly and without a word on stderr."""
        output, errors = self.process.communicate(timeout=PATIENCE_SECONDS)
        assert (self.process.returncode, errors.decode()) == (0, ""), output.decode()
