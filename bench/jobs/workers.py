"""The processes of a contender: its worker, its submitter, and their end.

Every process of ours is the leader of a session of its own, which its children share: that is how a whole tree is found
and killed, as the kernel of a container does it. Where there is no /proc, it is the process group.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .catalog import Setting
from .marks import FOLDER_VARIABLE
from .peers.base import OPTIONS_VARIABLE, URL_VARIABLE, WORKER_VARIABLE

ROOT = Path(__file__).resolve().parents[2]
SUBMIT_TIMEOUT_SECONDS = 180
STOP_SECONDS = 5


class ContenderFailed(Exception):
    """A process of a contender ended badly; the message is the last line it wrote."""


@dataclass
class Place:
    """Where one measurement happens: a folder and, for those on a server, a database of its own."""

    folder: Path
    url: str = ""

    def environment(self, setting: Setting, extra: dict[str, str]) -> dict[str, str]:
        path = os.pathsep.join([str(ROOT), str(ROOT / "src")] if setting.ours else [str(ROOT)])
        kept = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
        return kept | {
            "PYTHONPATH": path,
            FOLDER_VARIABLE: str(self.folder),
            URL_VARIABLE: self.url,
            OPTIONS_VARIABLE: json.dumps(setting.options),
            **({"REMAP_SIGTERM": "SIGQUIT"} if setting.options.get("remap") else {}),
            **extra,
        }


def command(setting: Setting, peers: Path | None, *arguments: object) -> list[str]:
    return [setting.python(peers), "-m", "bench.jobs.peers", setting.module, *map(str, arguments)]


def last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def submit(
    setting: Setting, peers: Path | None, place: Place, *arguments: object, **extra: str
) -> dict[str, Any]:
    """Run one verb of the contender's file to its end; its answer."""
    try:
        done = subprocess.run(
            command(setting, peers, *arguments),
            env=place.environment(setting, extra),
            cwd=place.folder,
            capture_output=True,
            text=True,
            timeout=SUBMIT_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ContenderFailed(f"submitting had not ended after {SUBMIT_TIMEOUT_SECONDS} s") from error
    if done.returncode:
        raise ContenderFailed(last_line(done.stderr) or f"exit code {done.returncode}")
    answer: dict[str, Any] = json.loads(last_line(done.stdout))
    return answer


class Worker:
    """A worker process and its children. What it prints goes to a file, whose last line explains a failure."""

    def __init__(
        self, setting: Setting, peers: Path | None, place: Place, name: str = "first", **extra: str
    ) -> None:
        self._log = place.folder / f"worker-{name}.log"
        self.started_at = time.monotonic()
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(
                command(setting, peers, "work"),
                env=place.environment(setting, {WORKER_VARIABLE: name, **extra}),
                cwd=place.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def session(self) -> int:
        return self.process.pid

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def why(self) -> str:
        return last_line(self._log.read_text(encoding="utf-8", errors="replace"))

    def kill(self) -> None:
        """The whole tree, at once."""
        kill_session(self.session)
        self.process.wait()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Ask, then kill what is left of the tree."""
        if not self.ended:
            self.process.terminate()
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                pass
        self.kill()


def kill_session(session: int) -> None:
    """SIGKILL to every process of that session, until none is left."""
    for _ in range(100):
        members = session_members(session)
        for pid in members:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if not members:
            return
        time.sleep(0.01)


def session_members(session: int) -> list[int]:
    """The processes of a session that still run; zombies have ended."""
    if not Path("/proc/self/stat").exists():
        try:
            os.killpg(session, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        return []
    members = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == session and fields[0] not in "ZX":
            members.append(int(entry.name))
    return members


def wait_until(condition: Callable[[], bool], seconds: float, pause: float = 0.02) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True
