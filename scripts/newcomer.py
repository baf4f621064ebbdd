"""A newcomer's path: an empty machine, and the README alone. Prints each step with its time, and their number.

python scripts/newcomer.py                     as the README says it; make newcomer
python scripts/newcomer.py --tests "tests/core -x"   of `make test` only these, on this Python only
python scripts/newcomer.py --skip-tests        all but `make test`

What is typed comes out of README.md: the commands and the program as they stand there. Two things differ, and are said
when they come: lastcall is installed from a folder, not from an index; and the port is another one, if 8000 is taken.
"Empty machine": the last commit in a folder of its own, with a home of its own and no environment variable but PATH and
what pip needs to reach its index. Python and make are the machine's. Exit code 0 if all went as the README says.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT_SECONDS = 3600.0
PYTHON = getattr(sys, "_base_executable", sys.executable)  # not the environment that this runs in
# The demo was not complete, and says so with 130; make passes the signal on, to itself.
INTERRUPTED = (130, -signal.SIGINT)
KEPT = (
    "PATH",
    "LANG",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)


class WentWrong(Exception):
    """The README says something else than what happened."""


class Machine:
    """An empty folder with a copy of the project, and somebody who types."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.project = folder / "lastcall"
        home = folder / "home"
        home.mkdir()
        self.environment = {name: os.environ[name] for name in KEPT if name in os.environ}
        self.environment |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        self.environment |= {"HOME": str(home), "TERM": "dumb", "PYTHONUNBUFFERED": "1"}
        self.steps: list[tuple[str, float]] = []
        clone(self.project)

    def use(self, environment: Path) -> None:
        """As `source bin/activate` does it."""
        self.environment["PATH"] = f"{environment / 'bin'}{os.pathsep}{self.environment['PATH']}"

    def step(self, what: str, begun: float) -> None:
        seconds = time.monotonic() - begun
        self.steps.append((what, seconds))
        print(f"{len(self.steps):3}. {what}  ({seconds:.1f} s)", flush=True)

    def type(self, command: str, cwd: Path) -> str:
        """A command that ends by itself; what it answers."""
        begun = time.monotonic()
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=cwd,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
        )
        if done.returncode != 0:
            raise WentWrong(
                f"{command}: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
            )
        self.step(command, begun)
        return done.stdout


class Running:
    """A command that runs until it is told to stop, and what it has said."""

    def __init__(self, machine: Machine, command: str, cwd: Path) -> None:
        self._machine, self._command, self._begun = machine, command, time.monotonic()
        self._said = ""
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            ["sh", "-c", f"exec {command}"],
            cwd=cwd,
            env=machine.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._said += line
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def see(self, pattern: str) -> re.Match[str]:
        """Wait until it has said this."""
        with self._changed:
            self._changed.wait_for(
                lambda: re.search(pattern, self._said) or not self._reader.is_alive(), LIMIT_SECONDS
            )
        found = re.search(pattern, self._said)
        if found is None:
            raise WentWrong(f"{self._command}: nobody saw {pattern!r} in\n{self._said[-4000:]}")
        self._machine.step(f"{self._command}   shows {found[0].strip()[:60]!r}", self._begun)
        self._begun = time.monotonic()
        return found

    def ctrl_c(self, codes: Sequence[int]) -> str:
        """Press it once, and wait for the end; all that it has said."""
        begun = time.monotonic()
        os.killpg(self._process.pid, signal.SIGINT)
        code = self._process.wait(60)
        self._reader.join(10)
        if code not in codes:
            raise WentWrong(
                f"{self._command}: Ctrl-C ended it with {code}, not one of {codes}\n{self._said[-4000:]}"
            )
        self._machine.step(f"Ctrl-C   exit code {code}", begun)
        return self._said

    def end(self) -> None:
        """Whatever has happened: nothing of it stays."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)


def clone(folder: Path) -> None:
    """What somebody gets who clones it: the last commit."""
    try:
        packed = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        raise WentWrong(f"{ROOT} is no git repository with a commit: there is nothing to clone") from None
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")


def section(readme: str, title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", readme, re.M | re.S)
    if found is None:
        raise WentWrong(f"the README has no section {title!r}")
    return found[1]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def both_commands(machine: Machine, readme: str, tests: str | None, skip_tests: bool) -> None:
    """The demo, stopped in the middle and run again; the tests."""
    lines = [
        line.partition(" #")[0].strip()
        for line in blocks(section(readme, "Two minutes"), "sh")[0].splitlines()
    ]
    demo, test = lines
    first = Running(machine, demo, machine.project)
    try:
        first.see(r"http://127\.0\.0\.1:\d+\S*")
        first.see(r"analysed [1-9]\d* of \d+ files")
        first.ctrl_c(INTERRUPTED)
    finally:
        first.end()
    again = Running(machine, demo, machine.project)
    try:
        again.see(r"[1-9]\d* of \d+ files were done before")
        again.ctrl_c(INTERRUPTED)
    finally:
        again.end()
    if skip_tests:
        print(f"     {test}: left out, as asked")
        return
    if tests is not None:
        series = f"{sys.version_info.major}.{sys.version_info.minor}"
        test = f"{test} ARGS='--only {series} -- {tests}'"
    closing = machine.type(test, machine.project).strip().splitlines()[-1]
    print(f"     {closing}")


def quickstart(machine: Machine, readme: str) -> None:
    """Installed, pasted, run, stopped, run again."""
    text = section(readme, "Quickstart")
    install, serve, order = (block.strip() for block in blocks(text, "sh"))
    work = machine.folder / "work"
    work.mkdir()
    machine.type(f"{PYTHON} -m venv venv", work)
    machine.use(work / "venv")
    wanted = re.sub(r"lastcall(\[\w+\])", lambda found: str(machine.project) + found[1], install)
    print(f"     ({install}: from the folder in place of an index)")
    machine.type(wanted, work)
    begun = time.monotonic()
    (work / "quickstart.py").write_text(blocks(text, "python")[0], encoding="utf-8")
    machine.step("quickstart.py is pasted", begun)
    port = free_port()
    if port != 8000:
        print(f"     (port 8000 is taken: {port})")
        serve, order = f"{serve} --port {port}", order.replace("8000", str(port))
    first = Running(machine, serve, work)
    try:
        first.see(rf"on http://127\.0\.0\.1:{port}")
        job = machine.type(order, work)
        first.see("chapter 2 is written")
        said = first.ctrl_c((0,))
    finally:
        first.end()
    again = Running(machine, serve, work)
    try:
        again.see("moby-dick is done")
        if machine.type(order, work) != job:
            raise WentWrong("the same order is another job")
        said += again.ctrl_c((0,))
    finally:
        again.end()
    written = re.findall(r"chapter (\d+) is written", said)
    if written != [str(number) for number in range(1, 21)]:
        raise WentWrong(f"the chapters that were written: {', '.join(written)}")
    print("     each chapter was written once")


def free_port() -> int:
    for port in (8000, 0):
        with socket.socket() as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                attempt.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(attempt.getsockname()[1])
    raise WentWrong("no port is free")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tests", metavar="ARGUMENTS", help="what pytest is told, in place of all tests")
    parser.add_argument("--skip-tests", action="store_true", help="leave out `make test`")
    options = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lastcall-newcomer-") as folder:
        machine = None
        try:
            machine = Machine(Path(folder))
            readme = (machine.project / "README.md").read_text(encoding="utf-8")
            both_commands(machine, readme, options.tests, options.skip_tests)
            quickstart(machine, readme)
        except (WentWrong, subprocess.TimeoutExpired) as error:
            step = 1 if machine is None else len(machine.steps) + 1
            print(f"newcomer: step {step} went wrong: {error}", file=sys.stderr)
            return 1
    print(f"{len(machine.steps)} steps, {time.monotonic() - begun:.0f} s in all")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
