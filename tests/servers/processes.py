"""Start a server as a group of real processes, signal it, see it end; leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"

_ports_lock = threading.Lock()
_ports_given: set[int] = set()


def free_port() -> int:
    """A port of 127.0.0.1 below the range from which the kernel takes the clients' own ports.

    A port out of that range, found free now, may be the near end of somebody's connection a moment later.
    """
    with _ports_lock:
        for _ in range(200):
            port = random.randrange(15_000, 30_000)
            if port in _ports_given:
                continue
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
            _ports_given.add(port)
            return port
    raise OSError("no free port found in 200 tries")


class ServerProcess:
    """A server with all its processes, in a process group of its own."""

    def __init__(self, command: list[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.command = command
        self.log_path = folder / "server.log"
        self._log = self.log_path.open("wb")
        python_path = os.pathsep.join([str(ROOT), str(SOURCE)])
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": python_path, "PYTHONUNBUFFERED": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.pid = self._process.pid
        self.exited_at: float | None = None
        self._watch = threading.Thread(target=self._wait, daemon=True)
        self._watch.start()

    def _wait(self) -> None:
        self._process.wait()
        self.exited_at = time.monotonic()

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.kill_all()
        if error is not None:
            error.add_note(f"command: {' '.join(self.command)}\nlog:\n{self.log}")

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def signal_main(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def signal_group(self, number: signal.Signals) -> None:
        os.killpg(self.pid, number)

    def wait(self, seconds: float) -> int | None:
        """The exit code of the main process, or None if it is still there after `seconds`."""
        self._watch.join(seconds)
        return None if self._watch.is_alive() else self._process.returncode

    def left_behind(self, seconds: float) -> bool:
        """Whether any process of the group outlives the main one by `seconds`."""
        deadline = time.monotonic() + seconds
        while _alive_in_group(self.pid):
            if time.monotonic() > deadline:
                return True
            time.sleep(0.01)
        return False

    def kill_all(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._watch.join(10)
        self._log.close()


def _alive_in_group(group: int) -> bool:
    """Zombies do not count: orphans are reaped by whoever is PID 1, which in a container may be nobody."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, in_group = stat.read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if int(in_group) == group and state != "Z":
            return True
    return not Path("/proc/self/stat").exists()
