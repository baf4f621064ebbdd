"""Runs the protocol's own suite and its JavaScript client against our server, as processes, and counts.

Who calls it: `scripts/durable_streams.py`, and the test beside it. What it owns: a folder of npm packages outside of
the repository (in the user's cache), installed once for each `package.json`; the server and the run, which it ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError
from urllib.request import urlopen

from tests.servers.processes import free_port

ROOT = Path(__file__).resolve().parents[3]
NODE = Path(__file__).with_name("node")

INSTALL_SECONDS = 240
START_SECONDS = 30
RUN_SECONDS = 280


class CannotRun(Exception):
    """Node, npm or the packages are not there; the message says which."""


class Result(NamedTuple):
    """What a run of vitest counted, and what did not pass."""

    passed: int
    failed: int
    skipped: int
    failures: list[str]
    skips: list[str]

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def why_not() -> str | None:
    """Why nothing can be run here: node or npm is missing."""
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    return (
        f"node: {' and '.join(missing)} not found, so the protocol's own suite did not run"
        if missing
        else None
    )


def packages() -> Path:
    """The folder with the npm packages; installs them when needed. Raises `CannotRun`."""
    if (missing := why_not()) is not None:
        raise CannotRun(missing)
    wanted = NODE.joinpath("package.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lastcall"
    folder = cache / f"durable-streams-{hashlib.sha256(wanted).hexdigest()[:12]}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        # Made aside and moved there: a half-installed folder is never taken for a whole one.
        aside = Path(tempfile.mkdtemp(dir=cache))
        try:
            aside.joinpath("package.json").write_bytes(wanted)
            done = subprocess.run(
                ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"],
                cwd=aside,
                capture_output=True,
                text=True,
                timeout=INSTALL_SECONDS,
            )
            if done.returncode:
                raise CannotRun(f"npm could not install the packages:\n{done.stderr[-2000:]}")
            with contextlib.suppress(OSError):  # another run was first
                aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return folder


class Server:
    """Our server as a process on a port, its streams in a file or (None) in memory. It may be started again."""

    def __init__(self, database: Path | None, port: int) -> None:
        self._port = port
        self._environment = dict(os.environ)
        self._environment.pop("DURABLE_STREAMS_DATABASE", None)
        if database is not None:
            self._environment["DURABLE_STREAMS_DATABASE"] = str(database)
        self._environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
        self.start()

    @property
    def url(self) -> str:
        """Of its streams."""
        return f"http://127.0.0.1:{self._port}/lastcall/streams"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [
            sys.executable,
            "-m",
            "uvicorn",
            "tests.streams.durable.app:app",
            "--port",
            str(self._port),
            # The suite computes for seconds between requests. On a busy machine that was longer than uvicorn keeps an
            # idle connection, and the next request went into one that had just been closed.
            "--timeout-keep-alive",
            str(RUN_SECONDS),
        ]
        self._process = subprocess.Popen(
            [*command, "--log-level", "warning"], env=self._environment, cwd=ROOT
        )
        _wait_ready(f"http://127.0.0.1:{self._port}/readyz", self._process)

    def stop(self) -> None:
        """By an order; it drains."""
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """By SIGKILL."""
        self._process.kill()
        self._process.wait(10)


@contextlib.contextmanager
def server(database: Path | None) -> Iterator[str]:
    """Our server on a port of its own; gives the URL of its streams."""
    running = Server(database, free_port())
    try:
        yield running.url
    finally:
        running.stop()


def _wait_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urlopen(url, timeout=5):
                return
        except URLError:
            time.sleep(0.05)
    raise RuntimeError(f"the server did not come up (exit code {process.poll()})")


def run(url: str, folder: Path, files: list[str]) -> Result:
    """Run vitest files against a server."""
    with tempfile.TemporaryDirectory(dir=folder) as own:
        for file in [*files, "vitest.config.mjs"]:
            shutil.copy(NODE / file, own)
        report = Path(own) / "report.json"
        command = [str(folder / "node_modules" / ".bin" / "vitest"), "run", "--root", own]
        done = subprocess.run(
            [*command, "--reporter=json", f"--outputFile={report}"],
            env={**os.environ, "DURABLE_STREAMS_URL": url, "CI": "1"},
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
        )
        if not report.exists():
            raise RuntimeError(
                f"vitest ended with {done.returncode} and no report:\n{done.stdout}{done.stderr}"
            )
        return _result(json.loads(report.read_text()))


def _result(report: dict[str, object]) -> Result:
    passed, failures, skips = 0, [], []
    for file in report["testResults"]:  # type: ignore[attr-defined]
        if file["status"] == "failed" and not file["assertionResults"]:
            failures.append(f"{file['name']}: {file['message']}")
        for test in file["assertionResults"]:
            if test["status"] == "passed":
                passed += 1
            elif test["status"] == "failed":
                failures.append(f"{test['fullName']}\n{''.join(test['failureMessages'])[:1000]}")
            else:
                skips.append(test["fullName"])
    return Result(passed, len(failures), len(skips), failures, skips)
