"""`lastcall db` and `lastcall schedules`: on stores of each age, and on the declarations of an app."""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest

from lastcall.cli._app import app as command
from lastcall.engines.sqlite import _schema
from lastcall.jobs import Jobs
from tests.support.postgres import shared_url

CODE = """
from lastcall.jobs import Jobs
jobs = Jobs("sqlite:///jobs.db")

@jobs.task(name="nightly", cron="0 4 * * *", timezone="Europe/Berlin")
async def nightly() -> None: ...

@jobs.task(name="hourly", cron="0 * * * *", catch_up=True)
async def hourly() -> None: ...

@jobs.task(name="plain")
async def plain() -> None: ...
"""

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Say]:
    """Calls the command in a folder with an app: exit code, standard output, standard error."""
    (tmp_path / "timetable_app.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("LASTCALL_DB", raising=False)

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            command(list(arguments), prog_name="lastcall")
        assert isinstance(end.value.code, int)
        return (end.value.code, *capsys.readouterr())

    yield call
    sys.modules.pop("timetable_app", None)


def age(path: Path, version: int) -> None:
    """Make a file of an older version, as its lastcall would have."""
    with closing(sqlite3.connect(path)) as connection:
        for step in _schema.MIGRATIONS[:version]:
            for statement in step:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {_schema.APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {version}")
        connection.commit()


def test_a_store_from_its_beginning(say: Say, tmp_path: Path) -> None:
    """None yet, made, current: looking makes none, migrating does, once; scripts read it off the exit code."""
    code, out, err = say("db", "status", "--app", "timetable_app:jobs", "--json")
    assert (code, json.loads(out)["schema"], err) == (1, "missing", "")
    assert not (tmp_path / "jobs.db").exists()
    assert say("db", "migrate", "--db", "sqlite:///jobs.db")[:2] == (
        0,
        f"jobs.db: the schema is brought from version 0 to {_schema.VERSION}\n",
    )
    assert "is current" in say("db", "migrate", "--db", "sqlite:///jobs.db")[1]
    code, out, _ = say("db", "status", "--db", "sqlite:///jobs.db", "--json")
    told = json.loads(out)
    assert (code, told["schema"], told["found"], told["jobs"]) == (0, "current", _schema.VERSION, {})


def test_an_older_store_is_looked_at_unchanged(say: Say, tmp_path: Path) -> None:
    """Opening migrates, so status must not open; afterwards it does, and the version is the known one."""
    age(tmp_path / "jobs.db", 1)
    for _ in range(2):
        code, out, _ = say("db", "status", "--db", "sqlite:///jobs.db")
        assert code == 1 and f"old: version 1, known here: {_schema.VERSION}" in out
    code, out, _ = say("db", "migrate", "--db", "sqlite:///jobs.db", "--json")
    assert (code, json.loads(out)["before"], json.loads(out)["found"]) == (0, 1, _schema.VERSION)


def test_stores_that_cannot_be_used(say: Say, tmp_path: Path) -> None:
    """Newer, somebody else's, no database, a folder that does not exist: one line, code 2, and nothing changed."""
    age(tmp_path / "new.db", _schema.VERSION)
    with closing(sqlite3.connect(tmp_path / "new.db")) as connection:
        connection.execute("PRAGMA user_version = 999")
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    (tmp_path / "text.db").write_text("no database, " * 100)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.db")}
    for name in before:
        for verb in ("status", "migrate"):
            code, _, err = say("db", verb, "--db", f"sqlite:///{name}")
            assert code == 2 and err.startswith("lastcall: ") and err.count("\n") == 1, (name, verb, err)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.db")} == before
    assert say("db", "migrate", "--db", "sqlite:///no/such/folder/jobs.db")[0] == 2
    assert say("db", "status")[0] == 2


def test_postgresql(say: Say) -> None:
    """The same on a server: a schema of its own from nothing, and a server that is not there."""
    url = f"{shared_url()}?schema=cli_{os.getpid()}"
    code, out, _ = say("db", "status", "--db", url, "--json")
    assert (code, json.loads(out)["schema"]) == (1, "empty")
    code, out, err = say("db", "migrate", "--db", url, "--json")
    assert (code, json.loads(out)["schema"], json.loads(out)["before"], err) == (0, "current", 0, "")
    code, out, _ = say("db", "status", "--db", url, "--json")
    assert (code, json.loads(out)["jobs"], json.loads(out)["workers"]) == (0, {}, 0)
    code, _, err = say("db", "status", "--db", "postgresql://ann:secret@127.0.0.1:1/shop")
    assert code == 2 and err.count("\n") == 1 and "secret" not in err


def test_many_processes_migrate_at_once(tmp_path: Path) -> None:
    """A deploy runs `lastcall db migrate` in each pod at once: one makes the schema, all answer that it is current."""
    url = f"{shared_url()}?schema=cli_many_{os.getpid()}"
    command = [sys.executable, "-m", "lastcall", "db", "migrate", "--db", url, "--json"]
    running = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = [json.loads(process.communicate(timeout=60)[0]) for process in running]
    assert {process.returncode for process in running} == {0}
    assert {(answer["schema"], answer["found"]) for answer in answers} == {("current", answers[0]["known"])}


def test_a_user_without_rights(say: Say) -> None:
    """A user who may not make a schema, nor look into the one that is there: one line that says so, and what helps."""
    schema = f"cli_rights_{os.getpid()}"
    mine = f"{shared_url()}?schema={schema}"
    theirs = mine.replace("postgres@", f"{schema}@")

    async def sql(*statements: str) -> None:
        connection = await asyncpg.connect(shared_url())
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    asyncio.run(sql(f"CREATE ROLE {schema} LOGIN"))
    code, _, err = say("db", "migrate", "--db", theirs)
    assert (code, err.count("\n")) == (2, 1) and "let it create the schema" in err
    assert say("db", "migrate", "--db", mine)[0] == 0
    for verb in ("status", "migrate"):
        code, _, err = say("db", verb, "--db", theirs)
        assert (code, err.count("\n")) == (2, 1) and "lacks a right" in err, (verb, err)
    asyncio.run(sql(f"DROP SCHEMA {schema} CASCADE", f"DROP ROLE {schema}"))


def test_schedules(say: Say, tmp_path: Path) -> None:
    """The store knows when they last ticked, the app when they tick next; what is not declared any more never does."""

    async def tick() -> None:
        async with Jobs("sqlite:///jobs.db") as jobs:
            now = (await jobs.overview()).now
            for name in ("hourly", "retired"):
                await jobs.engine.fire(name, now - 7200, None)

    asyncio.run(tick())
    code, out, _ = say("schedules", "list", "--app", "timetable_app:jobs", "--json")
    told = json.loads(out)
    hourly, nightly, retired = told["schedules"]
    assert code == 0 and [hourly["name"], nightly["name"], retired["name"]] == [
        "hourly",
        "nightly",
        "retired",
    ]
    assert 0 < hourly["next_tick"] - told["now"] <= 3600 and hourly["next_tick"] % 3600 == 0
    assert told["now"] - hourly["last_tick"] >= 7200 and nightly["last_tick"] is None
    assert nightly["timezone"] == "Europe/Berlin" and retired["next_tick"] is None and retired["cron"] is None
    _, out, _ = say("schedules", "list", "--app", "timetable_app:jobs")
    assert "never: not declared" in out and "0 4 * * *" in out
    _, out, _ = say("schedules", "list", "--db", "sqlite:///jobs.db")
    assert "hourly" in out and "CRON" not in out and "nightly" not in out


def test_a_schedule_is_run_now(say: Say) -> None:
    """Its job is submitted once, beside its ticks; a task without a schedule, or without an app, is refused."""
    say("db", "migrate", "--db", "sqlite:///jobs.db")
    code, out, _ = say("schedules", "run", "nightly", "--app", "timetable_app:jobs")
    assert (
        code == 0 and out.strip() in say("jobs", "list", "--db", "sqlite:///jobs.db", "--task", "nightly")[1]
    )
    for arguments in (["plain", "--app", "timetable_app:jobs"], ["nightly"]):
        code, out, err = say("schedules", "run", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
