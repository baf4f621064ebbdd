"""`lastcall move`: a file with jobs in every state goes to PostgreSQL, and they go on there; killed anywhere, it is run
again; and what is in its way is said."""

import asyncio
import json
import os
import random
import shutil
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from lastcall.cli._app import app as command
from lastcall.cli._move import Wanted, run_move
from lastcall.engines._carried import TABLES
from lastcall.engines.postgres import PostgresEngine
from lastcall.engines.postgres._arrival import Arrival
from lastcall.engines.sqlite import SqliteEngine
from lastcall.engines.sqlite import _schema as sqlite_schema
from lastcall.exceptions import EngineUnavailable
from lastcall.jobs import Jobs
from lastcall.jobs._engine import Engine
from lastcall.jobs._rows import JobQuery, NewEvent
from tests.engines.worlds import visible
from tests.jobs.crash.forks import Nursery
from tests.support.pg_tripwire import Tripwire
from tests.support.postgres import shared_url

from .move_program import Program

pytestmark = [pytest.mark.loops("asyncio"), pytest.mark.slow, pytest.mark.timeout(900)]

LONG = os.environ.get("LASTCALL_LONG") == "1"
SEED = int(os.environ.get("LASTCALL_SEED") or random.randrange(1 << 30))
PROGRAMS = "tests.cli.move_program"
NOT_CARRIED = ("worker", "meta", "witness", "label")
SCHEMA = f"move_{os.getpid()}"
TARGET = f"?schema={SCHEMA}"

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery(PROGRAMS) as nursery:
        yield nursery


@pytest.fixture(scope="module")
def lived(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the file and the ledger that a program has left that was killed in the middle."""
    folder = tmp_path_factory.mktemp("lived")
    given = {"url": f"sqlite:///{folder / 'jobs.db'}", "ledger": str(folder / "ledger")}
    child = nursery.fork(f"{PROGRAMS}:live", given, str(folder / "log"))
    assert child.wait() == -signal.SIGKILL, (folder / "log").read_text()
    return folder


@pytest.fixture
def folder(lived: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(lived, tmp_path / "copy"))


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Calls the command: exit code, standard output, standard error."""

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            command(list(arguments), prog_name="lastcall")
        assert isinstance(end.value.code, int)
        return (end.value.code, *capsys.readouterr())

    return call


@pytest.fixture(autouse=True)
def no_target() -> Iterator[None]:
    """Nothing is at the place, nor beside it, before and after."""
    asyncio.run(drop())
    yield
    asyncio.run(drop())


async def drop() -> None:
    await query(f'DROP SCHEMA IF EXISTS "{SCHEMA}" CASCADE')
    await query(f'DROP SCHEMA IF EXISTS "{SCHEMA} move" CASCADE')


async def query(statement: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(shared_url())
    try:
        return [tuple(row) for row in await connection.fetch(statement)]
    finally:
        await connection.close()


def schemas() -> list[str]:
    found = asyncio.run(query("SELECT nspname::text FROM pg_namespace"))
    return sorted(name for (name,) in found if name.startswith(SCHEMA))


def source(folder: Path) -> str:
    return f"sqlite:///{folder / 'jobs.db'}"


def target() -> str:
    return f"{shared_url()}{TARGET}"


@asynccontextmanager
async def opened(engine: Engine) -> AsyncIterator[Engine]:
    await engine.open()
    try:
        yield engine
    finally:
        await engine.close()


async def all_of(engine: Engine) -> dict[str, Any]:
    """Everything that can be seen of a store, but the clock."""
    ids = [row.id for row in await engine.find(JobQuery(limit=1000))]
    seen = await visible(engine, ids)
    del seen["now"]
    stream = Jobs(engine).streams.open("chat/42")
    return seen | {"stream": await stream.read(0, 100), "stream's info": await stream.info()}


async def all_of_file(folder: Path) -> dict[str, Any]:
    """With the jobs of the dead taken from them, as a move does first."""
    async with opened(SqliteEngine(str(folder / "jobs.db"))) as engine:
        await engine.rescue("somebody")
        return await all_of(engine)


async def all_at_target() -> dict[str, Any]:
    async with opened(PostgresEngine(shared_url(), schema=SCHEMA)) as engine:
        return await all_of(engine)


def ledger(folder: Path) -> Counter[str]:
    return Counter((folder / "ledger").read_text().splitlines())


# --- what goes along -----------------------------------------------------------------------------------


def test_everything_is_there(folder: Path, say: Say) -> None:
    """Jobs in each state, their steps, attempts, logs, waits and streams look the same at both places; the command says
    how many rows, and their checksums."""
    before = asyncio.run(all_of_file(folder))
    code, out, err = say("move", source(folder), target(), "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["state"], told["target"].rpartition("?")[2]) == ("moved", f"schema={SCHEMA}")
    assert (
        told["tables"]["job"]["rows"] == len(before["jobs"]) and len(told["tables"]["job"]["checksum"]) == 64
    )
    after = asyncio.run(all_at_target())
    for what, seen in before.items():
        assert after[what] == seen, what
    assert schemas() == [SCHEMA]
    ((at,),) = asyncio.run(query(f"SELECT at FROM {SCHEMA}.rate"))
    assert 0 <= time.time() - at < 600  # the bucket's clock here is that of the wall
    assert {row.status for row in before["jobs"]} == {
        "completed", "failed", "cancelled", "waiting", "scheduled", "queued"
    }  # fmt: skip


def test_jobs_go_on_behind_their_last_step(folder: Path) -> None:
    """One was killed in the third of four steps, one waits for a message, a parent for its children, one for its time:
    on PostgreSQL they end, and no completed step is called again. What is submitted by an old key is the old job, new
    jobs come behind the old ones, and readers go on at their cursors."""
    before = asyncio.run(all_of_file(folder))
    assert run_move(Wanted(source(folder), target(), batch=3)) == 0

    async def go_on() -> None:
        program = Program(target(), folder / "ledger")
        jobs = program.jobs
        async with jobs, jobs.worker():
            by_key = {info.key: jobs.job(info.id) for info in await jobs.find()}
            dies, waits = by_key["dies"], by_key["waits"]
            seen = [event.seq for event in before_of(before, waits.id)]
            assert await dies.result(timeout=30) == [
                f"dies has done {n}" for n in ("one", "two", "three", "four")
            ]
            assert [attempt.outcome for attempt in await dies.attempts()] == ["lost", "completed"]
            await waits.send("approval")
            assert await waits.result(timeout=30) == [
                f"waits has done {n}" for n in ("one", "two", "three", "four")
            ]
            assert await by_key["parent"].result(timeout=30) == 3
            assert await by_key["k"].result(timeout=30) == 7
            assert await by_key["later"].status() == "scheduled"
            assert (await by_key["done"].info()).labels == {"who": "ann"}
            assert (await program.four.options(key="done").submit("done")).id == by_key["done"].id
            assert [info.key for info in await jobs.find(label=("who", "ann"))] == ["done"]
            new = await program.leaf.options(key="new", labels={"who": "bob"}).submit(9)
            assert [info.key for info in await jobs.find(label=("who", "bob"))] == ["new"]
            assert (await jobs.find(limit=1))[0].id == new.id
            assert await new.result(timeout=30) == 9
            later = [event.seq async for event in waits.events(after=seen[-1])]
            assert later == list(range(seen[-1] + 1, seen[-1] + 1 + len(later))) and later
            page = await jobs.streams.open("chat/42").read(3, 10)
            assert [json.loads(entry.data)["number"] for entry in page.entries] == [3, 4]
            assert await jobs.streams.open("chat/42").append_json({"number": 5}) == 6

    asyncio.run(go_on())
    assert {call: times for call, times in ledger(folder).items() if times != 1} == {"dies three": 2}


def before_of(seen: dict[str, Any], job_id: str) -> list[Any]:
    return list(seen["events"][job_id].events)


def test_no_column_is_left_behind() -> None:
    """Every column of PostgreSQL's tables comes along, but for those that say who is at work now, and what is drawn
    from others."""

    async def columns() -> set[tuple[str, str]]:
        async with opened(PostgresEngine(shared_url(), schema=SCHEMA)):
            pass
        found = await query(
            f"SELECT table_name::text, column_name::text FROM information_schema.columns"
            f" JOIN pg_tables ON tablename = table_name AND schemaname = table_schema WHERE table_schema = '{SCHEMA}'"
        )
        return {(table, column) for table, column in found if table not in NOT_CARRIED}

    carried = {(table.name, column) for table in TABLES for column in table.columns}
    assert carried == asyncio.run(columns()) - {("job", "claim")}


def test_a_file_of_an_old_version(folder: Path, tmp_path: Path) -> None:
    """A log whose entries do not know how long it was, as before version 4, and a lastcall that is older than the file
    (its schema is brought up to date first): it moves, and the log can be appended to and read on."""
    with closing(sqlite3.connect(folder / "jobs.db")) as connection:
        connection.execute("UPDATE lastcall_event SET upto = NULL")
        connection.commit()
    before = asyncio.run(all_of_file(folder))
    assert run_move(Wanted(source(folder), target())) == 0
    assert asyncio.run(all_at_target())["events"] == before["events"]


# --- killed on the way ---------------------------------------------------------------------------------


async def test_killed_on_the_way_and_again(lived: Path, nursery: Nursery, tmp_path: Path) -> None:
    """kill -9 at a message to the server, before it arrives or when its answer is lost; then at another one; then it is
    run to its end: all is there, once, and nobody saw any of it before."""
    chance = random.Random(SEED)
    async with Tripwire(shared_url()).running() as wire:
        at = 0
        rescued = Path(shutil.copytree(lived, tmp_path / "rescued"))
        expected = await all_of_file(rescued)
        for number in range(1000 if LONG else 3):
            folder = Path(shutil.copytree(rescued, tmp_path / f"{number}"))
            await drop()
            # A move of this file has some 550 messages; in a long run the first kill is at each of them.
            at = at + 1 if LONG else chance.randrange(1, 550)
            places = [at, chance.randrange(1, 550)]
            ends = []
            for place in places:
                late = bool(chance.randrange(2))
                ends.append(await move_until(wire, nursery, folder, place, late=late))
                if await query(f"SELECT 1 FROM pg_namespace WHERE nspname = '{SCHEMA}'"):
                    assert await all_at_target() == expected, f"LASTCALL_SEED={SEED}: a part, after {places}"
            assert await move_until(wire, nursery, folder, 0) == 0, (folder / "log").read_text()
            assert await all_at_target() == expected, f"LASTCALL_SEED={SEED}, killed at {places}"
            with pytest.raises(EngineUnavailable, match=f"were moved to .*{SCHEMA}"):
                await SqliteEngine(str(folder / "jobs.db")).open()
            if ends[0] == 0:
                break
        print(f"LASTCALL_SEED={SEED}: {number + 1} moves, the last one killed at message {at}")


async def move_until(
    wire: Tripwire, nursery: Nursery, folder: Path, place: int, *, late: bool = False
) -> int:
    """Move in a process that is killed at this message. How it ended."""
    children: list[Any] = []
    wire.arm(place, late=late, at_once=True, act=lambda: children[0].send(signal.SIGKILL))
    given = {"source": source(folder), "target": f"{wire.url}{TARGET}", "batch": 4}
    children.append(await asyncio.to_thread(nursery.fork, f"{PROGRAMS}:move", given, str(folder / "log")))
    code: int = await asyncio.to_thread(children[0].wait)
    async with asyncio.timeout(30):
        listed = ",".join(map(str, wire.ports))
        busy = f"SELECT 1 FROM pg_stat_activity WHERE client_port IN ({listed}) AND state <> 'idle'"
        while await query(busy):
            await asyncio.sleep(0.005)
    assert code in (0, -signal.SIGKILL), (folder / "log").read_text()
    return code


def begun(folder: Path) -> None:
    """As a move leaves it that is killed when a part has arrived."""
    calls = 0

    async def stop(self: Any, table: Any, rows: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise EngineUnavailable("broken off here")
        await put(self, table, rows)

    put = Arrival.put
    Arrival.put = stop  # type: ignore[method-assign]
    try:
        assert run_move(Wanted(source(folder), target(), batch=2)) == 2
    finally:
        Arrival.put = put  # type: ignore[method-assign]


def test_while_it_is_not_done(folder: Path, say: Say) -> None:
    """A part has arrived: nobody can use the file, and is told so; nobody sees the new place; it moves on to that place
    alone; and a dry run changes nothing."""
    begun(folder)
    assert schemas() == [f"{SCHEMA} move"]
    code, _, err = say("jobs", "list", "--db", source(folder))
    assert code == 2 and "are being moved to" in err and "--undo" in err
    code, _, err = say("move", source(folder), f"{target()}_other")
    assert code == 1 and f"schema={SCHEMA}, and not to" in err
    code, out, _ = say("move", source(folder), target(), "--dry-run", "--json")
    assert code == 0 and json.loads(out)["resumed"] is True
    assert say("move", source(folder), target())[0] == 0


def test_it_is_given_up(folder: Path, say: Say) -> None:
    """With --undo the file is used again, as it was, and nothing is left of what had arrived; and it may move anew."""
    before = asyncio.run(all_of_file(folder))
    assert say("move", source(folder), target(), "--undo")[0] == 1
    begun(folder)
    code, out, _ = say("move", source(folder), target(), "--undo")
    assert code == 0 and "open again" in out
    assert schemas() == []
    assert asyncio.run(all_of_file(folder)) == before
    assert say("move", source(folder), target())[0] == 0
    code, _, err = say("move", source(folder), target(), "--undo")
    assert code == 1 and "is not undone" in err


def test_another_file_comes_in_between(folder: Path, lived: Path, tmp_path: Path, say: Say) -> None:
    """A move to the place is under way: one from another file is refused, and that file stays open."""
    begun(folder)
    other = Path(shutil.copytree(lived, tmp_path / "other"))
    code, _, err = say("move", source(other), target())
    assert code == 2 and "another move into the schema" in err
    assert say("jobs", "list", "--db", source(other))[0] == 0


def test_what_has_arrived_is_compared(folder: Path, say: Say) -> None:
    """Somebody changes a row of what has arrived: it is seen, and nothing is switched over."""
    begun(folder)
    asyncio.run(query(f"UPDATE \"{SCHEMA} move\".lane SET queue = queue || '!'"))
    code, _, err = say("move", source(folder), target())
    assert code == 2 and "the table 'lane' is not what was sent, at its row 1" in err and "--undo" in err
    assert schemas() == [f"{SCHEMA} move"]


# --- what is in its way --------------------------------------------------------------------------------


async def test_workers_are_at_work(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A worker lives: the move is refused with its name, and changes nothing; when it has stopped, the move is made. A
    program that had the file open all the time is told where its jobs are, whatever it does."""
    program = Program(source(folder), folder / "ledger")
    async with program.jobs as jobs:
        async with jobs.worker(queues=["none"]) as worker:
            for wanted in (Wanted(source(folder), target(), dry_run=True), Wanted(source(folder), target())):
                assert await asyncio.to_thread(run_move, wanted) == 1
                err = capsys.readouterr().err
                assert f"process {os.getpid()}" in err and "Stop them" in err
            assert worker.running == 0
            await program.leaf.submit(11)
        assert await asyncio.to_thread(run_move, Wanted(source(folder), target())) == 0
        (failed,) = await jobs.find(status="failed")
        writes = [
            lambda: program.leaf.submit(12),
            lambda: program.leaf.options(key="x").submit(12),
            lambda: jobs.submit_many(program.leaf.call(number) for number in range(10)),
            lambda: jobs.job(failed.id).retry(),
            lambda: jobs.job(failed.id).purge(),
            lambda: jobs.engine.append_events(failed.id, None, [NewEvent("note", "1")]),
            lambda: jobs.streams.create("new"),
            lambda: jobs.engine.fire("nightly", 9e9, None),
        ]
        for write in writes:
            with pytest.raises(EngineUnavailable, match=f"were moved to .*schema={SCHEMA}; use that URL"):
                await write()
        with pytest.raises(EngineUnavailable, match="were moved to"):
            async with jobs.worker():
                pass
    args = [row.args for row in (await all_at_target())["jobs"]]
    assert any("11" in each for each in args) and not any("12" in each for each in args)


def test_something_is_there_already(folder: Path, say: Say) -> None:
    """Jobs, a worker: named, and nothing is changed on either side. What a worker has left behind that found no jobs is
    no obstacle."""

    async def settle() -> None:
        async with Program(target(), folder / "other ledger").jobs as jobs:
            await jobs.task_named("leaf").submit(1)

    async def clear() -> None:
        await query(f"DELETE FROM {SCHEMA}.job")

    asyncio.run(settle())
    code, _, err = say("move", source(folder), target())
    assert code == 2 and "there are jobs or streams at" in err and "?schema=NAME" in err
    asyncio.run(clear())

    async def with_a_worker() -> None:
        async with Program(target(), folder / "other ledger").jobs as jobs, jobs.worker():
            code = await asyncio.to_thread(run_move, Wanted(source(folder), target()))
            assert code == 2

    asyncio.run(with_a_worker())
    assert say("jobs", "list", "--db", source(folder))[0] == 0
    assert say("move", source(folder), target())[0] == 0
    assert len(asyncio.run(all_at_target())["jobs"]) > 5


def test_what_cannot_be_moved(folder: Path, tmp_path: Path, say: Say) -> None:
    """Other engines, no file, no database, a server that is away, somebody else's tables: one line, without the
    password, and nothing is changed."""
    (tmp_path / "text.db").write_text("no database, " * 100)
    asyncio.run(query(f"CREATE SCHEMA {SCHEMA}"))
    asyncio.run(query(f"CREATE TABLE {SCHEMA}.theirs (x int)"))
    away = "postgresql://ann:secret@127.0.0.1:1/shop"
    for arguments, words in [
        ((target(), source(folder)), "from SQLite only"),
        ((source(folder), source(tmp_path)), "to PostgreSQL only"),
        ((f"sqlite:///{tmp_path}/none.db", target()), "no database"),
        ((f"sqlite:///{tmp_path}/text.db", target()), "not a database"),
        (("mysql://x/y", target()), "no engine knows"),
        ((source(folder), away), "cannot be reached"),
        ((source(folder), target()), "another application"),
    ]:
        code, out, err = say("move", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1) and words in err and "secret" not in err, (
            words,
            err,
        )
    assert say("jobs", "list", "--db", source(folder))[0] == 0


def test_an_older_schema_is_not_touched_by_a_dry_run(tmp_path: Path, say: Say) -> None:
    """A dry run changes nothing, so it does not migrate; the move itself does."""
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as connection:
        for step in sqlite_schema.MIGRATIONS[:1]:
            for statement in step:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {sqlite_schema.APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 1")
        connection.commit()
    code, _, err = say("move", source(tmp_path), target(), "--dry-run")
    assert code == 2 and "lastcall db migrate" in err
    assert say("move", source(tmp_path), target())[0] == 0
