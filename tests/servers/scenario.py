"""One run of one server: open the work, send the signal, note everything that can be seen from outside."""

from __future__ import annotations

import json
import signal
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import ledger
from .clients import Client, HttpClient, WebSocketClient, wait_until_served
from .processes import ServerProcess, free_port
from .setups import Setup

PLAN_SECONDS = 3.0  # drain 2, cancel 0.5, close 0.5: the plan of apps/service.py
STREAM_GRACE_SECONDS = 0.6
START_SECONDS = 40.0
STREAM_KINDS = ("sse", "sse-foreign")
SOCKET_KINDS = ("websocket", "websocket-foreign")
POST_KINDS = ("background-async", "background-sync", "task", "thread", "overstay", "stubborn", "stuck")
ALL_KINDS = (*STREAM_KINDS, *SOCKET_KINDS, *POST_KINDS[:5], "slow")


@dataclass(frozen=True)
class Stop:
    """How the server is told: which signal, to whom."""

    name: str
    number: signal.Signals
    group: bool

    def __str__(self) -> str:
        return self.name

    def send(self, server: ServerProcess) -> None:
        (server.signal_group if self.group else server.signal_main)(self.number)


TERM = Stop("term", signal.SIGTERM, group=False)  # an orchestrator, `kill`
CTRL_C = Stop("ctrl-c", signal.SIGINT, group=True)  # a terminal signals its whole foreground group
TERM_GROUP = Stop("term-group", signal.SIGTERM, group=True)  # systemd's KillMode=control-group
STOPS = (TERM, CTRL_C, TERM_GROUP)


@dataclass(frozen=True)
class Case:
    """What to run; equal cases are run once."""

    setup: Setup
    stop: Stop
    kinds: tuple[str, ...] = ALL_KINDS
    extra: tuple[str, ...] = ()  # further arguments of the server
    settings: str = "{}"  # JSON for apps/service.py
    application: str = "service"
    keep_connections: bool = True
    give_up_seconds: float = 12.0  # how long the end is waited for before the run is called a hang

    def __str__(self) -> str:
        kinds = "everything" if self.kinds == ALL_KINDS else "+".join(self.kinds) or "idle"
        return "-".join(filter(None, [str(self.setup), str(self.stop), kinds, *self.extra]))


@dataclass
class Run:
    """What was seen of one case."""

    case: Case
    main_pid: int = 0
    signalled_at: float = 0.0
    sending_took: float = 0.0
    exit_code: int | None = None
    exited_at: float | None = None  # None: it had to be killed
    left_behind: bool = False
    entries: list[ledger.Entry] = field(default_factory=list)
    clients: dict[str, Client] = field(default_factory=dict)
    run_delays: dict[int, float] = field(default_factory=dict)
    main_run_delay: float = 0.0
    log: str = ""

    @property
    def pids(self) -> list[int]:
        return [entry.pid for entry in self.entries if entry.event == "resource.opened"]

    def of(self, event: str, kind: str | None = None) -> list[ledger.Entry]:
        return [entry for entry in self.entries if entry.event == event and kind in (None, entry.kind)]

    @property
    def reports(self) -> list[dict[str, Any]]:
        return [entry["report"] for entry in self.of("resource.closed") if entry.fields.get("report")]

    def describe(self) -> str:
        """Everything, for a failure message."""
        lines = [f"{self.case}: exit code {self.exit_code}"]
        if self.exited_at is not None:
            lines[0] += f" at {self.exited_at - self.signalled_at:+.3f} s"
        for kind, client in self.clients.items():
            ended = "" if client.ended_at is None else f" at {client.ended_at - self.signalled_at:+.3f} s"
            extra = getattr(client, "status", None) or getattr(client, "code", None)
            lines.append(f"  client {kind}: {client.ending}{ended} {extra or ''} {client.detail}")
        for entry in self.entries:
            fields = {name: value for name, value in entry.fields.items() if name != "report"}
            lines.append(f"  {entry.at - self.signalled_at:+8.3f} [{entry.pid}] {entry.event} {fields}")
        return "\n".join([*lines, "  log:", *("    " + line for line in self.log.splitlines()[-80:])])


def run(case: Case) -> Run:
    """Run one case from the start of the server to its end, whatever happens on the way."""
    with tempfile.TemporaryDirectory(prefix="servers-") as folder:
        return _run(case, Path(folder))


def _run(case: Case, folder: Path) -> Run:
    port, book, marker = free_port(), folder / "ledger", folder / "marker"
    settings = {**json.loads(case.settings)}
    if case.setup.signal_is_forwarded:
        settings["note_signals"] = True
    environment = {
        "SERVERS_LEDGER": str(book),
        "SERVERS_MARKER": str(marker),
        "SERVERS_SETTINGS": json.dumps(settings),
    }
    command = case.setup.command(f"tests.servers.apps.{case.application}:app", port, *case.extra)
    seen = Run(case)
    with ServerProcess(command, folder, environment) as server:
        seen.main_pid = server.pid
        probe = "/livez" if case.application == "bare" else "/lastcall/livez"
        _wait_for_workers(case, book, server)
        wait_until_served(port, probe, seconds=START_SECONDS, alive=lambda: server.alive)
        _open_work(case, port, book, seen)
        _stop(case, server, marker, seen)
        seen.exit_code = server.wait(case.give_up_seconds)
        seen.exited_at = server.exited_at
        seen.left_behind = server.left_behind(1.0)
        server.kill_all()
        for client in seen.clients.values():
            client.join(5)
            client.close()
        seen.entries, seen.log = ledger.read(book), server.log
    return seen


def _wait_for_workers(case: Case, book: Path, server: ServerProcess) -> None:
    event = "resource.opened" if case.application == "bare" else "watching"

    def ready(entries: list[ledger.Entry]) -> bool:
        if not server.alive:
            raise RuntimeError("the server ended while it was starting")
        return sum(entry.event == event for entry in entries) >= case.setup.processes

    ledger.wait_for(book, ready, seconds=START_SECONDS, what=f"{case.setup.processes} x {event}")


def _open_work(case: Case, port: int, book: Path, seen: Run) -> None:
    for kind in case.kinds:
        client: Client
        if kind in SOCKET_KINDS:
            client = WebSocketClient(port, f"/{kind}")
        elif kind in POST_KINDS:
            client = HttpClient(port, f"/{kind}", method="POST", keep_open=case.keep_connections)
        else:
            client = HttpClient(port, f"/{kind}")
        seen.clients[kind] = client
        client.start()
    for kind, client in seen.clients.items():
        if kind != "slow" and not client.opened.wait(START_SECONDS):
            raise TimeoutError(f"the client of {kind} saw nothing of it")

    def all_started(entries: list[ledger.Entry]) -> bool:
        return {entry.kind for entry in entries if entry.event == "started"} >= set(case.kinds)

    ledger.wait_for(book, all_started, seconds=START_SECONDS, what=f"started: {', '.join(case.kinds)}")


def _stop(case: Case, server: ServerProcess, marker: Path, seen: Run) -> None:
    seen.entries = ledger.read(marker.with_name("ledger"))
    seen.run_delays = {pid: ledger.run_delay(pid) for pid in seen.pids}
    seen.main_run_delay = ledger.run_delay(server.pid)
    marker.touch()
    seen.signalled_at = time.monotonic()
    case.stop.send(server)
    seen.sending_took = time.monotonic() - seen.signalled_at
