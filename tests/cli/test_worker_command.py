"""`lastcall worker` as a person or a process manager uses it: real processes, real signals."""

import asyncio
import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from lastcall.cli._load import load_jobs
from lastcall.cli._say import Unusable
from lastcall.jobs import Job, JobInfo, Jobs
from lastcall.jobs._ids import new_id
from lastcall.jobs._rows import NewJob
from tests.cli.program import Program
from tests.cli.test_command import MODULE

APP = "tests.cli.jobs_app:jobs"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ledger").touch()
    return tmp_path


@pytest.fixture
def release(folder: Path) -> Iterator[Callable[[int], object]]:
    """Lets so many steps end."""
    os.mkfifo(folder / "pipe")
    pipe = os.open(folder / "pipe", os.O_RDWR)
    try:
        yield lambda count: os.write(pipe, b"." * count)
    finally:
        os.close(pipe)


def worker(folder: Path, *options: str, target: str = APP, env: dict[str, str] | None = None) -> Program:
    return Program([*MODULE, "worker", target, *options], cwd=folder, env=env)


def on_store(folder: Path, work: Callable[[Jobs], Coroutine[Any, Any, Any]]) -> Any:
    async def main() -> Any:
        async with Jobs(f"sqlite:///{folder}/jobs.db") as jobs:
            return await work(jobs)

    return asyncio.run(main())


def submit(folder: Path, task: str, *, queue: str = "default", **args: Any) -> str:
    """A job, as another process would write it."""
    job = NewJob(new_id(), task, json.dumps(args), queue=queue)
    on_store(folder, lambda jobs: jobs.engine.submit([job]))
    return job.id


def info(folder: Path, job_id: str) -> tuple[JobInfo, list[str | None]]:
    async def work(jobs: Jobs) -> tuple[JobInfo, list[str | None]]:
        job: Job[Any] = jobs.job(job_id)
        return await job.info(), [attempt.outcome for attempt in await job.attempts()]

    found: tuple[JobInfo, list[str | None]] = on_store(folder, work)
    return found


def ledger(folder: Path) -> list[str]:
    return (folder / "ledger").read_text().splitlines()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.server
def test_a_stop_hands_over_and_another_worker_goes_on(
    folder: Path, release: Callable[[int], object], number: signal.Signals
) -> None:
    """
    1. A job of five steps runs; the signal comes in its second.
    2. That step ends, and the worker with it. Another one is started.
    Result: exit code 0, every step once, nothing charged; both say what they are and how they ended.
    """
    job_id = submit(folder, "count", steps=5)
    release(1)
    with worker(folder, "--concurrency", "3") as program:
        program.wait_for("begin 1", on="out")
        program.signal(number)
        program.wait_for("shutting down")
        release(1)
        assert program.wait() == 0
    assert re.search(
        r"worker [0-9a-f-]{36} on .*jobs\.db.*: 3 at once, all queues, tasks: count, ", program.err
    )
    assert re.search(r"shutdown of worker \(shutdown\): clean", program.err)
    assert "1 handed_over" in program.err and "Traceback" not in program.err
    assert info(folder, job_id)[0].status == "queued"
    release(3)
    with worker(folder) as program:
        program.wait_for("end 4", on="out")
        program.signal(number)
        assert program.wait() == 0
    assert ledger(folder) == [f"{what} {n}" for n in range(5) for what in ("begin", "end")]
    shown, outcomes = info(folder, job_id)
    assert (shown.status, shown.result, shown.failures) == ("completed", 10, 0)
    assert outcomes == ["handed_over", "completed"]


@pytest.mark.server
def test_a_second_ctrl_c_forces(folder: Path, release: Callable[[int], object]) -> None:
    """A thread that hears nothing: the worker waits for it, forced it leaves, names it, and the job is handed over."""
    job_id, polite = submit(folder, "stubborn"), submit(folder, "polite")
    with worker(folder, "--cancel", "1", "--close", "1") as program:
        program.wait_for("stubborn", on="out")
        program.wait_for("polite begins", on="out")
        program.signal(signal.SIGINT)
        program.wait_for("shutting down")
        for _ in range(20):  # within a quarter of a second it is taken for an echo of the first
            program.signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                program._process.wait(0.3)
            if "polite is cancelled" in program.out:
                break
        assert program.wait() == 130
    assert "forced" in program.err and "in stubborn" in program.err
    for id in (job_id, polite):
        shown, outcomes = info(folder, id)
        assert (shown.status, outcomes) == ("queued", ["handed_over"])


@pytest.mark.server
def test_what_is_cut_off_at_the_deadline_is_1(folder: Path, release: Callable[[int], object]) -> None:
    """The drain is over and the job still runs: handed over all the same, but the exit code says so."""
    job_id = submit(folder, "stubborn")
    with worker(folder, "--drain", "0.1", "--cancel", "0.1", "--close", "1") as program:
        program.wait_for("stubborn", on="out")
        program.signal(signal.SIGTERM)
        assert program.wait() == 1
    assert "NOT clean" in program.err
    assert info(folder, job_id)[0].status == "queued"


@pytest.mark.server
def test_an_end_that_cannot_be_written_is_1(folder: Path, release: Callable[[int], object]) -> None:
    """Somebody holds the lock of the store from the middle of a job to after the worker's close phase: it does not
    pretend that all went well, and names the job."""
    job_id = submit(folder, "stubborn")
    with worker(folder, "--close", "1") as program:
        program.wait_for("stubborn", on="out")
        with contextlib.closing(sqlite3.connect(folder / "jobs.db", isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            release(1)
            program.signal(signal.SIGTERM)
            program.wait_for(
                rf"NOT clean(?s:.*)resource 'worker [^']+' failed: .*job {job_id} \(attempt 1, Completed\).*"
                "loses its attempt when the lease of 15 s is over"
            )
        assert program.wait() == 1


@pytest.mark.server
def test_only_the_queues_that_were_named(folder: Path) -> None:
    """A worker for one queue leaves the other alone; one that tells only warnings is silent about itself."""
    default = submit(folder, "fail", what="default queue")
    slow = submit(folder, "fail", queue="slow", what="slow queue")
    with worker(folder, "--queue", "slow", "--queue", "slower", "--log-level", "warning") as program:
        program.wait_for("no slow queue")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
    assert info(folder, slow)[0].status == "failed"
    assert info(folder, default)[0].status == "queued"
    assert "tasks:" not in program.err and "shutdown" not in program.err


@pytest.mark.server
@pytest.mark.slow
def test_jobs_in_processes_of_their_own(folder: Path) -> None:
    """`run="process"` starts an interpreter, which must find the app where the worker has found it."""
    (folder / "processes.py").write_text(
        "from lastcall.jobs import Jobs\n"
        'jobs = Jobs("sqlite:///jobs.db")\n'
        '@jobs.task(name="apart", run="process")\n'
        "def apart(n: int) -> int:\n"
        "    return n + 1\n"
    )
    job_id = submit(folder, "apart", n=1)
    with worker(folder, target="processes:jobs") as program:
        program.wait_for("tasks: apart")
        ended = on_store(folder, lambda jobs: jobs.job(job_id).wait(timeout=30))
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
    assert (ended.status, ended.result) == ("completed", 2), ended.error


@pytest.mark.server
def test_the_app_s_own_logging_is_kept(folder: Path) -> None:
    """An app that configures logging when it is imported gets our lines in its own format, once."""
    (folder / "app.py").write_text(
        "import logging, sys\n"
        "from lastcall.jobs import Jobs\n"
        'logging.basicConfig(stream=sys.stderr, format="MINE %(message)s")\n'
        'jobs = Jobs("sqlite:///jobs.db")\n'
    )
    with worker(folder, target="app:jobs") as program:
        program.wait_for("MINE no task is declared")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
    assert program.err.count("MINE worker ") == 1 and " INFO " not in program.err


# --- what cannot begin ---


def refused(folder: Path, *arguments: str) -> str:
    """The one line that it says, and code 2."""
    with worker(folder, *arguments[1:], target=arguments[0]) as program:
        assert program.wait() == 2
    assert program.out == "" and program.err.count("\n") == 1, program.err
    assert not (folder / "jobs.db").exists()
    return program.err


APPS = {
    "app": 'from lastcall.jobs import Jobs\njobs = Jobs("sqlite:///jobs.db")\nother = 5\n',
    "nowhere": 'from lastcall.jobs import Jobs\njobs = Jobs("sqlite:///no/such/folder/jobs.db")\n',
    "text": 'from lastcall.jobs import Jobs\njobs = Jobs("sqlite:///text.py")\n',
    "odd": (
        'from lastcall.jobs import Jobs\njobs = Jobs("sqlite:///jobs.db")\n'
        '@jobs.task(name="odd")\ndef odd(x: "Nobody") -> None: ...\n'
    ),
}


@pytest.fixture
def apps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of apps, the current one; what is imported from it is forgotten again."""
    for name, text in APPS.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for file in tmp_path.glob("*.py"):
        sys.modules.pop(file.stem, None)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("app", "module:attribute"),
        ("app:", "module:attribute"),
        (":jobs", "module:attribute"),
        ("a b:jobs", "module:attribute"),
        ("app.py:jobs", "app:jobs"),
        ("./app:jobs", "app:jobs"),
        ("nobody:jobs", "no module 'nobody'"),
        ("nobody.at.home:jobs", "no module 'nobody'"),
        ("app.nobody:jobs", "no module 'app.nobody'"),
        ("app:job", "'job'; there is app:jobs"),
        ("app:jobs.nobody", "'jobs.nobody'"),
        ("app:other", "'int'; there is app:jobs"),
    ],
)
def test_a_name_that_leads_nowhere_is_named(apps: Path, target: str, said: str) -> None:
    """Every way to mistype MODULE:ATTRIBUTE, each with what to write instead where that is known."""
    with pytest.raises(Unusable) as raised:
        load_jobs(target)
    assert said in str(raised.value) and raised.value.details == ""


def test_the_jobs_may_be_an_attribute_of_something(apps: Path) -> None:
    """A class or a namespace that holds them."""
    (apps / "holder.py").write_text(APPS["app"] + "class Container:\n    work = jobs\n")
    assert isinstance(load_jobs("holder:Container.work"), Jobs)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nobody:jobs"], "no module 'nobody'"),
        (["app:jobs", "--queue", ""], "queue"),
        (["app:jobs", "--drain", "inf"], "drain"),
        (["nowhere:jobs"], "no/such/folder"),
        (["text:jobs"], "not an SQLite database"),
        (["odd:jobs"], "Nobody"),
    ],
)
def test_what_cannot_begin_is_one_clear_line(apps: Path, arguments: list[str], said: str) -> None:
    """No traceback of ours, no store created, no report of a shutdown of nothing."""
    assert said in refused(apps, *arguments)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nobody_at_home\n", "ModuleNotFoundError: No module named 'nobody_at_home'"),
        ("def broken(:\n", "SyntaxError"),
        ("raise SystemExit('no configuration')\n", "SystemExit: no configuration"),
        ("from lastcall.jobs import Jobs\njobs = Jobs('mysql://x')\n", "UnknownEngine"),
    ],
)
def test_an_app_that_cannot_be_imported_is_told_with_its_own_traceback(
    apps: Path, text: str, said: str
) -> None:
    """The traceback is the app's, from its first line on, and the last line says it all."""
    (apps / "broken.py").write_text(text)
    with pytest.raises(Unusable) as raised:
        load_jobs("broken:jobs")
    details = raised.value.details
    assert details.count("Traceback") == int(said != "SyntaxError")
    assert "broken.py" in details and "importlib" not in details and "_load.py" not in details
    assert str(raised.value).startswith("importing 'broken' failed: ") and said in str(raised.value)


def test_the_traceback_of_the_app_is_printed_before_the_line(apps: Path) -> None:
    """As a person sees it."""
    (apps / "broken.py").write_text("1 / 0\n")
    with worker(apps, target="broken:jobs") as program:
        assert program.wait() == 2
    lines = program.err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "lastcall: importing 'broken' failed: ZeroDivisionError: division by zero"


@pytest.mark.parametrize("options", [["--concurrency", "0"], ["--log-level", "loud"], []])
def test_options_out_of_range_are_usage_errors(tmp_path: Path, options: list[str]) -> None:
    """Refused before anything begins, with code 2."""
    arguments = [APP, *options] if options else []
    with Program([*MODULE, "worker", *arguments], cwd=tmp_path) as program:
        assert program.wait() == 2
    assert program.out == "" and "Usage" in program.err and "Traceback" not in program.err


@pytest.mark.parametrize("missing", ["cronsim", "uuid_utils"])
def test_a_missing_package_names_the_extra(tmp_path: Path, missing: str) -> None:
    """Installed without what jobs need: the command says what to install, and its help works without it."""
    code = f"import sys; sys.modules[{missing!r}] = None; import lastcall.cli; lastcall.cli.main()"
    with Program(["-c", code, "worker", APP], cwd=tmp_path) as program:
        assert program.wait() == 2
    assert (
        program.err
        == f"lastcall: this command needs {missing}. Install it with: pip install 'lastcall[demo]'\n"
    )
    with Program(["-c", code, "worker", "--help"], cwd=tmp_path) as program:
        assert program.wait() == 0
    assert "MODULE:ATTRIBUTE" in program.out and "Exit code" in program.out


def test_the_installed_command_finds_the_app_in_the_current_folder(folder: Path) -> None:
    """`lastcall` has its own folder on the path, not the one it is called in; `python -m lastcall` has both."""
    (folder / "app.py").write_text(APPS["app"])
    code = "import sys; sys.path = [p for p in sys.path if p]; from lastcall.cli import main; main()"
    with Program(["-c", code, "worker", "app:jobs"], cwd=folder) as program:
        program.wait_for("no task is declared")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
