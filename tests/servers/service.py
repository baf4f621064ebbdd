"""One process group that runs apps/service.py, for the tests that steer it by hand."""

from __future__ import annotations

from pathlib import Path

from . import ledger
from .clients import wait_until_served
from .processes import ServerProcess
from .scenario import START_SECONDS
from .setups import Setup

TARGET = "tests.servers.apps.service:app"


def environment(folder: Path, settings: str = "{}") -> dict[str, str]:
    paths = {"SERVERS_LEDGER": str(folder / "ledger"), "SERVERS_MARKER": str(folder / "marker")}
    return {**paths, "SERVERS_SETTINGS": settings}


def start(setup: Setup, port: int, folder: Path, *extra: str, settings: str = "{}") -> ServerProcess:
    folder.mkdir(parents=True, exist_ok=True)
    return ServerProcess(setup.command(TARGET, port, *extra), folder, environment(folder, settings))


def wait_until_watching(server: ServerProcess, folder: Path, port: int, processes: int = 1) -> None:
    def ready(entries: list[ledger.Entry]) -> bool:
        if not server.alive:
            raise RuntimeError("the server ended while it was starting")
        return sum(entry.event == "watching" for entry in entries) >= processes

    ledger.wait_for(folder / "ledger", ready, seconds=START_SECONDS, what=f"{processes} x watching")
    wait_until_served(port, "/lastcall/livez", seconds=START_SECONDS, alive=lambda: server.alive)


def wait_for_event(folder: Path, event: str, kind: str) -> list[ledger.Entry]:
    def there(entries: list[ledger.Entry]) -> bool:
        return any(entry.event == event and entry.kind == kind for entry in entries)

    return ledger.wait_for(folder / "ledger", there, seconds=20, what=f"{event} {kind}")
