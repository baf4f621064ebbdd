"""Runs the tests on every CPython that this machine has, and prints one table and one closing line.

    python scripts/matrix.py [--only 3.12] [--all] [-- pytest arguments]

It is what `make test` calls, with the Python of the project's own environment (`.venv`); the other versions
get environments beside it (`.venv-3.12`). A version that is not found is named.

Everything runs once, on the version at hand. The others run what may depend on the interpreter, and leave out what
talks to other programs and what measures. The core runs on every loop of every version. For the rest each loop has
its version: asyncio's loop the one at hand, eager tasks 3.12, with which they came, uvloop 3.13; what only the version
at hand runs, it runs on uvloop as well, and all the rest too where no other version is found that would.
`--all` runs all of it everywhere.

The real servers and the crashes arrange their own runs, and go alone: they measure how soon an application
hears of its stop, or a job goes on, and a machine full of other tests would be what they measure.
With pytest arguments there is one plain run per version, with just these.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import interpreters
from interpreters import Interpreter, series_of

ROOT = Path(__file__).resolve().parent.parent
EXPECTED = ("3.11", "3.12", "3.13", "3.14")  # named when missing
NEWER = ("3.15", "3.16", "3.17", "3.18")  # run when found
# What measures how soon something happens, and so has the machine for itself.
ALONE = ("tests/servers", "tests/jobs/crash")
# What other versions leave out: other programs and libraries are the same ones, and so are texts and figures.
ONCE = (
    "tests/agents/libraries",
    "tests/bench",
    "tests/cli",
    "tests/dashboard",
    "tests/demo",
    "tests/dispatch",
    "tests/docs",
    "tests/engines/postgres",
    "tests/examples",
    "tests/fleet",
    "tests/frame",
    "tests/observing",
)
ONCE_MARKS = "not server and not bench"
# What rests on how loops and interpreters make, step and cancel tasks, and so on each pair of the two.
CORE = "tests/core"
# What other versions run of the rest; one that is not named, on every loop. `name:folder` is for that folder only.
LOOPS = {"3.12": f"eager,asyncio:{CORE},uvloop:{CORE}", "3.13": f"uvloop,asyncio:{CORE},eager:{CORE}"}
# More than two cores can do, because most tests wait for other processes; whoever is done takes from the others.
IN_PARALLEL = ("-n", "4", "--dist", "worksteal")
# Where files of these tests stand if there is room: each commit waits for the disk, which is half of many tests' time.
# What is alone has the disk. Docker gives 64 MB of it, which is not enough.
MEMORY = Path("/dev/shm")
MEMORY_BYTES = 2 << 30
NO_TESTS = 5  # pytest's exit code when it selected none
INTERRUPTED = 130
ENDING_SECONDS = 60  # what pytest gets to end after Ctrl-C, before it is killed


@dataclass
class Result:
    """What one version's run came to."""

    version: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    def fail(self, note: str) -> None:
        self.failed += 1
        self.notes.append(note)


def main() -> int:
    options = parse_arguments(sys.argv[1:])
    results: list[Result] = []
    wanted = options.only or (*EXPECTED, *NEWER)
    found = {series: python for series in wanted if (python := interpreters.find(series)) is not None}
    missing = [s for s in wanted if s not in found and (s not in NEWER or options.only)]
    interrupted = False
    try:
        for python in found.values():
            results.append(Result(python.version))
            test_version(
                python, results[-1], options, [series for series in found if series != python.series]
            )
    except KeyboardInterrupt:
        interrupted = True
    if interrupted and results:
        results[-1].notes.append("interrupted")
    print_summary(results, missing)
    if interrupted:
        return INTERRUPTED
    return 0 if any(r.passed for r in results) and not any(r.failed for r in results) else 1


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Split our own options from pytest's, at `--`."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", action="append", metavar="3.X", help="this version only (may be repeated)")
    parser.add_argument("--all", action="store_true", help="everything on every version")
    options = parser.parse_args(arguments[:at])
    options.pytest = arguments[at + 1 :]
    return options


def test_version(
    python: Interpreter, result: Result, options: argparse.Namespace, others: Sequence[str]
) -> None:
    """Install the project for one interpreter and run its tests, all counted into `result`."""
    at_hand = python.series == series_of(sys.version.split()[0])
    print(f"\n=== CPython {python.version} ===", flush=True)
    began = time.monotonic()
    try:
        executable = Path(sys.executable) if at_hand else environment(python)
        if options.pytest:
            run_pytest(executable, [options.pytest], result)
        elif at_hand or options.all:
            alone = [folder for folder in ALONE if (ROOT / folder).is_dir()]
            together = [*IN_PARALLEL, *(f"--ignore={folder}" for folder in alone)]
            loops = None if options.all else loops_at_hand(others)
            run_pytest(executable, [alone, together] if alone else [together], result, loops)
        else:
            loops = LOOPS.get(python.series)
            result.notes.append(
                f"what depends on the interpreter, on {loops.partition(',')[0] if loops else 'every loop'} "
                "(--all runs the rest)"
            )
            ignored = [f"--ignore={folder}" for folder in ONCE]
            run_pytest(executable, [[*IN_PARALLEL, "-m", ONCE_MARKS, *ignored]], result, loops)
    except subprocess.CalledProcessError as error:
        result.fail(f"the environment could not be made: {error}")
    finally:
        result.seconds = time.monotonic() - began


def loops_at_hand(others: Sequence[str]) -> str | None:
    """On which loops the version at hand runs, if these others run too; None: on every loop it has."""
    if not any("uvloop" in LOOPS.get(series, "uvloop").split(",") for series in others):
        return None
    # Eager tasks are only asked for where the version at hand knows them.
    again = ["uvloop"] if sys.version_info < (3, 12) else ["uvloop", "eager"]
    return ",".join(["asyncio", *(f"{loop}:{folder}" for folder in (CORE, *ONCE) for loop in again)])


def environment(python: Interpreter) -> Path:
    """The Python of this version's environment, made or brought up to date when pyproject.toml changed."""
    own = Path(sys.prefix) if sys.prefix != sys.base_prefix else ROOT / ".venv"
    folder = own.with_name(f"{own.name}-{python.series}")
    stamp = folder / ".installed"
    executable = folder / "bin" / "python"
    wanted = f"{python.version} {ROOT} {hashlib.sha256((ROOT / 'pyproject.toml').read_bytes()).hexdigest()}"
    if stamp.exists() and stamp.read_text() == wanted and executable.exists():
        return executable
    print(f"installing into {folder.name} ...", flush=True)
    subprocess.run([python.path, "-m", "venv", "--clear", folder], check=True)
    pip = [executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--editable", f"{ROOT}[test]"], check=True)
    stamp.write_text(wanted)
    return executable


def place_in_memory() -> Path | None:
    """A folder whose files are in memory, with room for a run; None: there is none, so the disk it is."""
    try:
        return (
            MEMORY if shutil.disk_usage(MEMORY).free >= MEMORY_BYTES and os.access(MEMORY, os.W_OK) else None
        )
    except OSError:
        return None


def run_pytest(executable: Path, lanes: list[list[str]], result: Result, loops: str | None = None) -> None:
    """Run pytest once per lane, one lane after the other, and count what each wrote down, test by test."""
    env = dict(os.environ)
    for name in ("PYTHONPATH", "PYTHONASYNCIODEBUG", "PYTHONWARNINGS", "PYTEST_ADDOPTS"):
        env.pop(name, None)  # a developer's shell must not decide what a run means
    if loops is not None:
        env.setdefault("LASTCALL_LOOPS", loops)
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryDirectory(dir=place_in_memory()) as memory,
    ):
        runs = [Lane(Path(folder) / str(n), arguments) for n, arguments in enumerate(lanes)]
        codes: list[int] = []
        try:
            for run in runs:
                together = {"PYTEST_DEBUG_TEMPROOT": memory} if run.in_parallel else {}
                run.start(executable, env | together)
                codes.append(run.wait())
        except KeyboardInterrupt:
            # The terminal told pytest too; it needs a moment to end its servers.
            for run in runs:
                run.end()
            raise
        finally:
            count([run.record for run in runs], result)
    for code in codes:
        if code not in (0, NO_TESTS) and not result.failed:
            result.fail(f"pytest ended with exit code {code} although no test failed")


class Lane:
    """One pytest process and its record."""

    def __init__(self, folder: Path, arguments: list[str]) -> None:
        folder.mkdir()
        self.record = folder / "results.jsonl"
        self.in_parallel = arguments[: len(IN_PARALLEL)] == [*IN_PARALLEL]
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, executable: Path, env: dict[str, str]) -> None:
        command = [executable, "-m", "pytest", "-q", *self._arguments]
        env = {**env, "LASTCALL_RESULTS": str(self.record)}
        self._process = subprocess.Popen(command, cwd=ROOT, env=env)

    def wait(self) -> int:
        """Its exit code."""
        assert self._process is not None
        return self._process.wait()

    def end(self) -> None:
        if self._process is not None:
            end(self._process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that was told to stop; a second Ctrl-C or too long a wait kills it."""
    try:
        process.wait(ENDING_SECONDS)
    except (KeyboardInterrupt, subprocess.TimeoutExpired):
        process.kill()
        process.wait()


def count(records: list[Path], result: Result) -> None:
    """Add up the recorded events; a test without an end hung or took the interpreter down."""
    open_tests: list[str] = []
    # What could not be collected is refused by every lane and worker, and counts once.
    refused: set[str] = set()
    lines = [line for path in records if path.exists() for line in path.read_text("utf-8").splitlines()]
    for line in lines:
        event = json.loads(line)
        test = event["test"]
        if event["event"] == "began":
            open_tests.append(test)
            continue
        if test in open_tests:
            open_tests.remove(test)
        elif test in refused:
            continue
        else:
            refused.add(test)
        match event["event"]:
            case "passed":
                result.passed += 1
            case "skipped":
                result.skipped += 1
            case _:
                result.fail(f"failed: {test}")
    for test in open_tests:
        result.fail(f"hung or crashed, and ended the run: {test}")


def print_summary(results: list[Result], missing: list[str]) -> None:
    """The table, the versions that did not run, and the closing line, which is the last one."""
    print(f"\n{'version':<18}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}")
    for r in results:
        print(f"{'CPython ' + r.version:<18}{r.passed:>8}{r.failed:>8}{r.skipped:>9}{r.seconds:>9.1f}")
        for note in r.notes:
            print(f"    {note}")
    for series in missing:
        print(f"CPython {series}: not found, its tests did not run")
    passed, failed = sum(r.passed for r in results), sum(r.failed for r in results)
    print(f"{passed} passed, {failed} failed, {sum(r.skipped for r in results)} skipped", flush=True)


if __name__ == "__main__":
    sys.exit(main())
