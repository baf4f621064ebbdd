"""The servers, and how each is started: server x workers x loop."""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Setup:
    family: str  # uvicorn, hypercorn, granian, gunicorn (with uvicorn's worker), gunicorn-asgi (its own)
    workers: int  # 0: hypercorn's way to run the application in the main process
    loop: str  # asyncio, uvloop

    def __str__(self) -> str:
        return f"{self.family}-{self.workers}-{self.loop}"

    @property
    def processes(self) -> int:
        """How many processes run the application."""
        return max(1, self.workers)

    @property
    def signal_is_forwarded(self) -> bool:
        """uvicorn's parent looks for its own signals every 0.5 s; only then does it tell its workers."""
        return self.family == "uvicorn" and self.workers > 1

    @property
    def told_within_seconds(self) -> float:
        """Hypercorn's workers get no signal, their event is polled; all others hear the signal itself."""
        return 0.100 if self.family == "hypercorn" and self.workers else 0.050

    def command(self, target: str, port: int, *extra: str) -> list[str]:
        return [sys.executable, "-m", *_ARGUMENTS[self.family](self, target, port), *extra]


def _uvicorn(setup: Setup, target: str, port: int) -> list[str]:
    line = ["uvicorn", target, "--host", "127.0.0.1", "--port", str(port), "--loop", setup.loop]
    return [*line, "--workers", str(setup.workers)] if setup.workers > 1 else line


def _hypercorn(setup: Setup, target: str, port: int) -> list[str]:
    return ["hypercorn", target, "-b", f"127.0.0.1:{port}", "-w", str(setup.workers), "-k", setup.loop]


def _granian(setup: Setup, target: str, port: int) -> list[str]:
    line = ["granian", target, "--interface", "asgi", "--host", "127.0.0.1", "--port", str(port)]
    return [*line, "--workers", str(setup.workers), "--loop", setup.loop]


def _gunicorn(setup: Setup, target: str, port: int) -> list[str]:
    worker = "UvicornWorker" if setup.loop == "uvloop" else "UvicornH11Worker"
    line = ["gunicorn", target, "-b", f"127.0.0.1:{port}", "-w", str(setup.workers)]
    return [*line, "-k", f"uvicorn_worker.{worker}", "--no-control-socket"]


def _gunicorn_asgi(setup: Setup, target: str, port: int) -> list[str]:
    line = ["gunicorn", target, "-b", f"127.0.0.1:{port}", "-w", str(setup.workers)]
    return [*line, "-k", "asgi", "--asgi-loop", setup.loop, "--no-control-socket"]


_ARGUMENTS = {
    "uvicorn": _uvicorn,
    "hypercorn": _hypercorn,
    "granian": _granian,
    "gunicorn": _gunicorn,
    "gunicorn-asgi": _gunicorn_asgi,
}

SETUPS = [
    *(Setup("uvicorn", workers, loop) for workers in (1, 2) for loop in ("asyncio", "uvloop")),
    *(Setup("hypercorn", workers, loop) for workers in (0, 1, 2) for loop in ("asyncio", "uvloop")),
    *(Setup("granian", workers, loop) for workers in (1, 2) for loop in ("asyncio", "uvloop")),
    *(Setup("gunicorn", workers, "uvloop") for workers in (1, 2)),
    *(Setup("gunicorn-asgi", workers, loop) for workers, loop in ((1, "asyncio"), (2, "uvloop"))),
]

# One loop per server and number of workers: the ten set-ups for runs with one kind of work alone.
TEN = [
    Setup("uvicorn", 1, "uvloop"),
    Setup("uvicorn", 2, "asyncio"),
    Setup("hypercorn", 0, "asyncio"),
    Setup("hypercorn", 1, "asyncio"),
    Setup("hypercorn", 2, "uvloop"),
    Setup("granian", 1, "uvloop"),
    Setup("granian", 2, "asyncio"),
    Setup("gunicorn", 1, "uvloop"),
    Setup("gunicorn", 2, "uvloop"),
    Setup("gunicorn-asgi", 1, "asyncio"),
]
