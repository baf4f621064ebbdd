"""`lastcall jobs`: what it prints for people and for scripts, its exit codes, and what it refuses."""

import asyncio
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lastcall import TaskManager
from lastcall.cli import _ids
from lastcall.cli._app import app
from lastcall.jobs import Context, Job, Jobs, JobStatus, StepPolicy, StepStatus, WorkerRow
from lastcall.jobs._ids import new_id
from lastcall.jobs._rows import ClaimRequest, StepRecord
from tests.cli.program import ROOT, Program
from tests.cli.test_command import MODULE

NOBODY = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"


class Done(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def line(self) -> str:
        """The one line about what went wrong."""
        assert self.err.startswith("lastcall: ") and self.err.count("\n") == 1, self.err
        return self.err


class Shell:
    """Calls the command in this process, in a folder with a store; `on_store` works on that store beside it."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder}/jobs.db"
        self._capture = capture

    def __call__(self, *arguments: str) -> Done:
        try:
            code = app(["jobs", *arguments], prog_name="lastcall", standalone_mode=True)
        except SystemExit as end:
            code = end.code
        out, err = self._capture.readouterr()
        assert isinstance(code, int)
        return Done(code, out, err)

    def on_store(self, work: Callable[[Jobs, "Tasks"], Coroutine[Any, Any, Any]]) -> Any:
        async def main() -> Any:
            async with Jobs(self.url) as jobs:
                return await work(jobs, Tasks(jobs))

        return asyncio.run(main())


class Tasks:
    """What the jobs in the store are."""

    def __init__(self, jobs: Jobs) -> None:
        @jobs.task(name="add")
        async def add(ctx: Context, a: int, b: int = 0) -> int:
            for n in range(a):
                await ctx.progress(n + 1, a)
            await ctx.log("adding")
            return await ctx.step(_sum, a, b)

        @jobs.task(name="wait")
        async def wait(ctx: Context) -> Any:
            return await ctx.wait_for("go")

        @jobs.task(name="fail")
        async def fail(what: str) -> None:
            raise ValueError(f"no {what}")

        @jobs.task(name="pay")
        async def pay(ctx: Context) -> Any:
            return await ctx.step(_receipt, name="charge", policy="once")

        @jobs.task(name="tick", cron="0 4 * * *")
        async def tick() -> None: ...

        self.jobs, self.add, self.wait, self.fail, self.pay = jobs, add, wait, fail, pay

    async def run_all(self) -> None:
        """Run what is there until nothing of it can go on."""
        async with TaskManager() as manager, self.jobs.worker(manager=manager):
            async with asyncio.timeout(20):
                while await self.jobs.find(status=["queued", "running"]):
                    await asyncio.sleep(0.01)


def _sum(a: int, b: int) -> int:
    return a + b


def _receipt() -> str:
    return "receipt"


@pytest.fixture
def shell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shell]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    shell = Shell(tmp_path, capsys)
    monkeypatch.setenv("LASTCALL_DB", shell.url)
    yield shell


def submit_three(shell: Shell) -> list[str]:
    """A queued job, a scheduled one, and one that waits for a message."""

    async def work(jobs: Jobs, tasks: Tasks) -> list[str]:
        waits = await tasks.wait.options(queue="slow").submit()
        await tasks.run_all()
        add = await tasks.add.options(key="k", labels={"who": "a=b"}).submit(1)
        later = await tasks.add.options(delay=3600).submit(2)
        return [add.id, later.id, waits.id]

    ids: list[str] = shell.on_store(work)
    return ids


# --- list ---


def test_the_list_is_a_line_per_job(shell: Shell) -> None:
    """The newest first, with what is worth knowing of each, and whole ids to copy."""
    add, later, waits = submit_three(shell)
    done = shell("list")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].split() == ["ID", "STATUS", "AGE", "TASK", "WHAT"]
    assert [line.split()[:2] for line in lines[1:]] == [
        [later, "scheduled"],
        [add, "queued"],
        [waits, "waiting"],
    ]
    assert '{"a": 2}' in lines[1] and "waits for signal go" in lines[3]


def test_the_list_fits_eighty_columns(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long names are cut, ids never."""
    submit_three(shell)
    shell.on_store(lambda jobs, tasks: tasks.fail.submit("x" * 500))
    monkeypatch.setenv("COLUMNS", "80")
    lines = shell("list").out.splitlines()
    assert max(map(len, lines)) <= 80
    assert all(re.match(r"[0-9a-f-]{36} ", line) for line in lines[1:])


def test_the_list_for_scripts_pages_through_everything(shell: Shell) -> None:
    """One JSON object per page: the items, how many, and the cursor of the next page."""
    ids = shell.on_store(lambda jobs, tasks: _submit_many(tasks, 5))
    first = shell("list", "--json", "--limit", "2")
    assert (first.code, first.err, set(first.json)) == (0, "", {"jobs", "shown", "next"})
    seen, cursor = [job["id"] for job in first.json["jobs"]], first.json["next"]
    while cursor:
        page = shell("list", "--json", "--limit", "2", "--before", cursor).json
        seen += [job["id"] for job in page["jobs"]]
        cursor = page["next"]
    assert seen == ids[::-1]
    told = shell("list", "--limit", "2")
    assert f"--before {ids[-2]}" in told.line


async def _submit_many(tasks: Tasks, count: int) -> list[str]:
    return [(await tasks.add.submit(n)).id for n in range(count)]


def test_the_list_is_filtered(shell: Shell) -> None:
    """Every filter, alone and together."""
    add, later, waits = submit_three(shell)
    for options, expected in [
        (["--status", "waiting"], [waits]),
        (["--status", "queued", "--status", "scheduled"], [later, add]),
        (["--task", "add", "--status", "queued"], [add]),
        (["--queue", "slow"], [waits]),
        (["--key", "k"], [add]),
        (["--label", "who=a=b"], [add]),
        (["--task", "nobody"], []),
    ]:
        found = shell("list", "--json", *options)
        assert [job["id"] for job in found.json["jobs"]] == expected, options
    assert shell("list", "--task", "nobody").out == "no jobs\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--status", "gone"], "'gone'; use scheduled, "),
        (["--label", "who"], "name=value"),
        (["--before", NOBODY], NOBODY),
        (["--before", "x"], "'x'"),
        (["--task", "\udcff"], "no text"),
    ],
)
def test_filters_that_cannot_be_are_named(shell: Shell, options: list[str], said: str) -> None:
    """One line and code 2, and nothing that a script could take for an empty list."""
    submit_three(shell)
    for flags in ([], ["--json"]):
        done = shell("list", *options, *flags)
        assert (done.code, done.out) == (2, "")
        assert said in done.line


# --- show and stats ---


def test_a_job_is_shown_whole(shell: Shell) -> None:
    """Its facts, its steps with their values, its attempts, and the last of its events."""

    async def work(jobs: Jobs, tasks: Tasks) -> list[str]:
        add, fail = (
            await tasks.add.options(key="k").submit(40, 2),
            await tasks.fail.submit("[bold]luck\x1b[0m"),
        )
        await tasks.run_all()
        return [add.id, fail.id]

    add, fail = shell.on_store(work)
    done = shell("show", add)
    assert done.code == 0
    for words in ("completed", '{"a": 40, "b": 2}', "42", "_sum(40,2)", '{"done": 40, "of": 40}', "adding"):
        assert words in done.out
    assert '{"done": 31, "of": 40}' not in done.out  # the last ten only
    shown = shell("show", add, "--json", "--events", "3").json
    assert (shown["result"], shown["key"], shown["undecided_steps"]) == (42, "k", [])
    assert [(step["key"], step["value"]) for step in shown["steps"]] == [("_sum(40,2)", 42)]
    assert [attempt["outcome"] for attempt in shown["attempts"]] == ["completed"]
    assert [event["seq"] for event in shown["events"]] == [41, 42, 43]
    done = shell("show", fail)
    assert "ValueError: no [bold]luck" in done.out and "Traceback" in done.out and "\x1b" not in done.out
    assert shell("show", fail, "--json").json["error"]["message"] == "no [bold]luck\x1b[0m"


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8, 9])
def test_the_last_events_are_the_last(shell: Shell, count: int) -> None:
    """A log that is read from its beginning only: the end of it is found, however long it is."""

    async def work(jobs: Jobs, tasks: Tasks) -> tuple[str, list[int]]:
        job = await tasks.add.submit(count)
        await tasks.run_all()
        return job.id, [event.seq async for event in job.events()]

    id, seqs = shell.on_store(work)
    for wanted in (1, 2, 5, 100):
        shown = shell("show", id, "--json", "--events", str(wanted)).json["events"]
        assert [event["seq"] for event in shown] == seqs[-wanted:]
    assert shell("show", id, "--json", "--events", "0").json["events"] == []


def test_stats_count_jobs_workers_and_schedules(shell: Shell) -> None:
    """By queue and status; a worker that is late is still listed."""
    submit_three(shell)

    async def work(jobs: Jobs, tasks: Tasks) -> str:
        worker = WorkerRow(new_id(), "elsewhere", 17, None, None, None, 15.0, 3, frozenset({"slow"}))
        await jobs.engine.join(worker)
        return worker.id

    worker = shell.on_store(work)
    shown = shell("stats", "--json").json
    assert shown["jobs"] == {"queued": 1, "scheduled": 1, "waiting": 1}
    assert shown["queues"] == {"default": {"queued": 1, "scheduled": 1}, "slow": {"waiting": 1}}
    assert [(row["id"], row["queues"]) for row in shown["workers"]] == [(worker, ["slow"])]
    assert [row["name"] for row in shown["schedules"]] == ["tick"]
    done = shell("stats")
    assert done.code == 0
    for words in ("default", "slow", worker, "elsewhere", "0/3", "tick"):
        assert words in done.out


# --- doing ---


def test_cancel_retry_and_purge(shell: Shell) -> None:
    """0 when it is done, 1 when the job's state does not allow it, and each says which."""
    add, later, waits = submit_three(shell)
    done = shell("purge", add)
    assert (done.code, done.out) == (1, "")
    assert f"job {add} is queued" in done.line
    done = shell("cancel", add, later)
    assert (done.code, done.out) == (0, f"{add} cancelled\n{later} cancelled\n")
    done = shell("cancel", add)
    assert done.code == 1 and "ended already" in done.line
    done = shell("retry", add)
    assert (done.code, done.out) == (0, f"{add} queued\n")
    done = shell("retry", waits)
    assert done.code == 1 and "waiting" in done.line
    done = shell("purge", later, "--json")
    assert (done.code, done.json) == (0, {"jobs": [{"id": later, "answer": "purged"}]})
    done = shell("show", later)
    assert (done.code, done.out) == (2, "") and later in done.line


def test_one_bad_id_does_not_stop_the_others(shell: Shell) -> None:
    """All are tried, the worst of it is the exit code, and JSON has them in order."""
    add, later, waits = submit_three(shell)
    done = shell("cancel", NOBODY, add, "nonsense", add, waits, "--json")
    assert done.code == 2
    assert done.json == {
        "jobs": [
            {"id": NOBODY, "answer": "unknown"},
            {"id": add, "answer": "cancelled"},
            {"id": "nonsense", "answer": "unknown"},
            {"id": add, "answer": "already_ended"},
            {"id": waits, "answer": "cancelled"},
        ]
    }
    assert done.err.count("lastcall: ") == 3


def test_a_message_is_sent(shell: Shell) -> None:
    """With data as JSON or without; refused when the job has ended or the data is no JSON."""
    _, _, waits = submit_three(shell)
    for bad in ("{", "yes", "NaN", '"\\ud800"', "[" * 200 + "]" * 200):
        done = shell("send", waits, "go", bad)
        assert (done.code, done.out) == (2, "") and done.line
    assert shell("send", waits, "").code == 2
    done = shell("send", waits, "go", '{"ok": "Zoë"}')
    assert (done.code, done.out) == (0, f"{waits} sent\n")

    async def work(jobs: Jobs, tasks: Tasks) -> Any:
        await tasks.run_all()
        return await jobs.job(waits).result(timeout=10)

    assert shell.on_store(work) == {"ok": "Zoë"}
    done = shell("send", waits, "go")
    assert done.code == 1 and "completed" in done.line


@pytest.mark.parametrize(
    ("decision", "status", "result"),
    [
        (["--happened", '"by phone"'], "completed", "by phone"),
        (["--not-happened"], "completed", "receipt"),
        (["--error", "stolen"], "failed", None),
    ],
)
def test_a_step_in_doubt_is_resolved(shell: Shell, decision: list[str], status: str, result: Any) -> None:
    """A payment whose process died: `show` names the step, `resolve` decides, once."""

    async def die(jobs: Jobs, tasks: Tasks) -> str:
        job: Job[Any] = await tasks.pay.submit()
        worker = WorkerRow(new_id(), "elsewhere", 1, None, None, None, 0.001, 1, None)
        await jobs.engine.join(worker)
        await jobs.engine.claim(ClaimRequest(worker.id, 1, {("pay", ""): None}))
        started = StepRecord("charge", StepStatus.STARTED, policy=StepPolicy.ONCE)
        assert await jobs.engine.record_step(job.id, 1, started)
        await jobs.engine.rescue(new_id())
        await tasks.run_all()
        return job.id

    id = shell.on_store(die)
    assert re.search(r"undecided +charge", shell("show", id).out)
    for bad in ([], ["--not-happened", "--error", "x"], ["--happened", "{"]):
        done = shell("resolve", id, "charge", *bad)
        assert (done.code, done.out) == (2, "") and done.line
    done = shell("resolve", id, "chrage", *decision)
    assert done.code == 1 and "charge" in done.line
    done = shell("resolve", id, "charge", *decision)
    assert (done.code, done.out) == (0, f"{id} resolved\n")

    async def look(jobs: Jobs, tasks: Tasks) -> tuple[JobStatus, Any]:
        await tasks.run_all()
        info = await jobs.job(id).info()
        return info.status, info.result

    assert shell.on_store(look) == (status, result)
    assert shell("resolve", id, "charge", *decision).code == 1


# --- ids ---


def test_an_id_may_be_abbreviated_where_it_is_unique(shell: Shell) -> None:
    """By its end or its beginning, in either case; several that fit, or none, are named."""
    add, later, _ = submit_three(shell)
    for text in (add[-8:], add[-20:].upper(), add[:35]):
        assert shell("show", text, "--json").json["id"] == add
    done = shell("show", os.path.commonprefix([add, later]))
    assert done.code == 2 and "give more of it" in done.line
    for text in (add[-3:], "", "%", "zzzz", "0000-0000"):
        assert (shell("show", text).code, shell("cancel", text).code) == (2, 2)
    assert shell("show", add, "--json").json["status"] == "queued"


def test_too_many_jobs_to_be_sure(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not all ids can be compared, an abbreviation might mean another job: it is refused, a whole id is not."""
    ids = shell.on_store(lambda jobs, tasks: _submit_many(tasks, 7))
    monkeypatch.setattr(_ids, "_SEARCHED_AT_ONCE", 2)
    monkeypatch.setattr(_ids, "_SEARCHED", 7)
    assert shell("cancel", ids[0][-8:]).code == 0
    monkeypatch.setattr(_ids, "_SEARCHED", 6)
    done = shell("cancel", ids[1][-8:])
    assert done.code == 2 and "the whole id" in done.line
    assert shell("cancel", ids[1]).code == 0


# --- the store ---


def test_a_store_that_does_not_exist_is_not_created(shell: Shell) -> None:
    """Looking at a mistyped name must not leave an empty database behind, nor say "no jobs"."""
    for verb in (["list"], ["stats"], ["show", NOBODY], ["cancel", NOBODY]):
        for url in ("sqlite:///nobody.db", f"sqlite:///{shell.folder}/no/where.db"):
            done = shell(*verb, "--db", url)
            assert (done.code, done.out) == (2, "") and "there is no database" in done.line
    assert list(shell.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "empty"),
        (b"not a database, but long enough to be read as the head of one" * 20, "not an SQLite"),
    ],
)
def test_a_file_that_is_no_store_is_left_alone(shell: Shell, text: bytes, said: str) -> None:
    """It is not written to, and the line says what it is."""
    file = shell.folder / "file.db"
    file.write_bytes(text)
    done = shell("list", "--db", "sqlite:///file.db")
    assert (done.code, done.out) == (2, "") and said in done.line
    assert file.read_bytes() == text and [path.name for path in shell.folder.iterdir()] == ["file.db"]


def test_a_damaged_row_is_one_line(shell: Shell) -> None:
    """Somebody has edited the database by hand: no traceback, and code 2."""
    add, _, _ = submit_three(shell)
    with closing(sqlite3.connect(shell.folder / "jobs.db")) as connection, connection:
        connection.execute("UPDATE lastcall_job SET args = '{' WHERE id = ?", (add,))
    for verb in (["list"], ["list", "--json"], ["show", add]):
        done = shell(*verb)
        assert (done.code, done.out) == (2, "") and "cannot be read" in done.line


@pytest.mark.parametrize(
    "url", ["jobs.db", "mysql://x", "sqlite://host/x.db", "sqlite:///x.db?a=b", "postgresql://x"]
)
def test_a_url_that_cannot_be_is_one_line(shell: Shell, url: str) -> None:
    """An unknown scheme, a host, an option that does not exist."""
    done = shell("list", "--db", url)
    assert (done.code, done.out) == (2, "") and done.line


def test_where_the_jobs_are_must_be_said_once(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither --db nor --app nor the variable, or two at once."""
    done = shell("list", "--db", shell.url, "--app", "app:jobs")
    assert done.code == 2 and "not both" in done.line
    monkeypatch.delenv("LASTCALL_DB")
    done = shell("list")
    assert done.code == 2 and "LASTCALL_DB" in done.line


def test_the_jobs_of_an_app(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """--app comes before the variable; what is wrong with it is one line."""
    submit_three(shell)
    (shell.folder / "its_app.py").write_text(
        'from lastcall.jobs import Jobs\njobs = Jobs("sqlite:///jobs.db")\nlater = Jobs("sqlite:///later.db")\n'
    )
    monkeypatch.setenv("LASTCALL_DB", "sqlite:///nobody.db")
    monkeypatch.setattr(sys, "path", list(sys.path))
    try:
        assert shell("list", "--app", "its_app:jobs", "--json").json["shown"] == 3
        done = shell("list", "--app", "its_app:later")
        assert done.code == 2 and "later.db" in done.line
        done = shell("list", "--app", "its_app:nobody")
        assert done.code == 2 and "its_app:jobs" in done.line
    finally:
        sys.modules.pop("its_app", None)
    assert not (shell.folder / "later.db").exists()


# --- as a process ---


def test_the_command_itself(shell: Shell) -> None:
    """In a process of its own, piped: plain text, no colours, no warnings."""
    submit_three(shell)
    with Program([*MODULE, "jobs", "list", "--db", shell.url], env={"PYTHONWARNINGS": "error"}) as program:
        assert program.wait() == 0
    assert program.err == "" and "\x1b" not in program.out and len(program.out.splitlines()) == 4


def test_a_reader_that_leaves_ends_the_command_quietly(shell: Shell) -> None:
    """`lastcall jobs list | head -0`: no traceback."""
    submit_three(shell)
    reading, writing = os.pipe()
    os.close(reading)
    try:
        process = subprocess.run(
            [sys.executable, *MODULE, "jobs", "list", "--json", "--db", shell.url],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    finally:
        os.close(writing)
    assert (process.returncode, process.stderr) == (0, "")


@pytest.mark.parametrize("verb", ["", "list", "show", "stats", "cancel", "retry", "purge", "send", "resolve"])
def test_every_help_is_there(shell: Shell, verb: str) -> None:
    """Each says what it is for and what its exit codes mean."""
    done = shell(*filter(None, [verb]), "--help")
    assert (done.code, done.err) == (0, "")
    assert "Exit code" in done.out or not verb
