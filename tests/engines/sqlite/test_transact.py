"""The user's own rows in one commit with the step: what the user's code may do with the engine's connection."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from lastcall.engines.sqlite import SqliteEngine
from lastcall.exceptions import BadDeclaration
from lastcall.jobs._rows import ClaimRequest, NewJob, StepRecord, WorkerRow
from lastcall.jobs._state import StepStatus

from .support import inside, opened, query

pytestmark = pytest.mark.loops("asyncio")

STEP = StepRecord("pay", StepStatus.COMPLETED)
TASKS = {("work", ""): None}
WORKER = WorkerRow("w", "host", 1, None, None, None, 15.0, 10, None)

Work = Callable[[sqlite3.Connection], str]


async def begin(engine: SqliteEngine) -> None:
    """The user's table, and the job `a` at work."""
    await inside(engine, lambda store: store.execute("CREATE TABLE mine (x UNIQUE)"))
    await engine.submit([NewJob("a", "work", "[]")])
    await engine.join(WORKER)
    assert len((await engine.claim(ClaimRequest("w", 1, TASKS))).jobs) == 1


def insert(connection: sqlite3.Connection) -> str:
    connection.execute("INSERT INTO mine VALUES (1)")
    return "1"


FORBIDDEN = {
    "COMMIT": "transaction",
    "ROLLBACK": "transaction",
    "BEGIN": "transaction",
    "SAVEPOINT x": "savepoints",
    "PRAGMA synchronous = OFF": "PRAGMA",
    "ATTACH ':memory:' AS other": "attach",
    "DELETE FROM lastcall_job": "lastcall_job",
    "UPDATE lastcall_step SET value = 2": "lastcall_step",
    "INSERT INTO lastcall_schedule VALUES ('x', 1)": "lastcall_schedule",
    "DROP TABLE lastcall_rate": "lastcall_rate",
    "ALTER TABLE lastcall_rate RENAME TO x": "lastcall_rate",
    "CREATE TRIGGER t AFTER INSERT ON lastcall_job BEGIN SELECT 1; END": "lastcall_job",
}


@pytest.mark.parametrize("statement", FORBIDDEN)
async def test_what_would_break_the_promise(tmp_path: Path, statement: str) -> None:
    """The code does its own work and then something forbidden: nothing of it is written, and the engine is unharmed."""
    path = tmp_path / "jobs.db"
    async with opened(path) as engine:
        await begin(engine)

        def work(connection: sqlite3.Connection) -> str:
            insert(connection)
            connection.execute(statement)
            return "1"

        with pytest.raises(BadDeclaration, match=FORBIDDEN[statement]):
            await engine.transact("a", 1, STEP, work)
        assert query(path, "SELECT * FROM mine") == []
        assert await engine.steps("a") == []
        assert await engine.transact("a", 1, STEP, insert) == "1"
        assert query(path, "SELECT * FROM mine") == [(1,)]


async def test_commit_by_method(tmp_path: Path) -> None:
    """`connection.commit()`, `.rollback()` and `executescript` (which commits first) are refused as well."""

    def commit(connection: sqlite3.Connection) -> str:
        insert(connection)
        connection.commit()
        return "1"

    def rollback(connection: sqlite3.Connection) -> str:
        insert(connection)
        connection.rollback()
        return "1"

    def script(connection: sqlite3.Connection) -> str:
        insert(connection)
        connection.executescript("SELECT 1")
        return "1"

    path = tmp_path / "jobs.db"
    async with opened(path) as engine:
        await begin(engine)
        for work in (commit, rollback, script):
            with pytest.raises(BadDeclaration, match="transaction"):
                await engine.transact("a", 1, STEP, work)
        assert query(path, "SELECT * FROM mine") == []


async def test_reading_and_own_tables_are_free(tmp_path: Path) -> None:
    """The code may read everything, make tables and indexes, and catch its own errors."""

    def work(connection: sqlite3.Connection) -> str:
        connection.row_factory = sqlite3.Row
        connection.execute("CREATE TABLE also_mine (x, y)")
        connection.execute("CREATE INDEX also_mine_x ON also_mine (x)")
        connection.execute("INSERT INTO mine VALUES (1)")
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute("INSERT INTO mine VALUES (1)")
        (row,) = connection.execute("SELECT id, status FROM lastcall_job").fetchall()
        return f'"{row["status"]}"'

    path = tmp_path / "jobs.db"
    async with opened(path) as engine:
        await begin(engine)
        assert await engine.transact("a", 1, STEP, work) == '"running"'
        assert query(path, "SELECT * FROM mine") == [(1,)]
        assert (await engine.steps("a"))[0].value == '"running"'
        await engine.submit([NewJob("b", "work", "[]")])  # rows are tuples again
        assert len((await engine.claim(ClaimRequest("w", 1, TASKS))).jobs) == 1


async def test_the_codes_own_errors(tmp_path: Path) -> None:
    """What the code raises comes out as it is, be it sqlite3's, the end of an iterator or of the program."""

    class Mine(BaseException):
        pass

    def raising(error: BaseException) -> Work:
        def work(connection: sqlite3.Connection) -> str:
            insert(connection)
            raise error

        return work

    def duplicate(connection: sqlite3.Connection) -> str:
        insert(connection)
        return insert(connection)

    path = tmp_path / "jobs.db"
    async with opened(path) as engine:
        await begin(engine)
        with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
            await engine.transact("a", 1, STEP, duplicate)
        with pytest.raises(KeyError, match="mine"):
            await engine.transact("a", 1, STEP, raising(KeyError("mine")))
        with pytest.raises(Mine):
            await engine.transact("a", 1, STEP, raising(Mine()))
        with pytest.raises(RuntimeError, match="StopIteration"):
            await engine.transact("a", 1, STEP, raising(StopIteration()))
        assert query(path, "SELECT * FROM mine") == []
        assert await engine.transact("a", 1, STEP, insert) == "1"


async def test_a_connection_that_the_code_closed(tmp_path: Path) -> None:
    """The code closes what is not its own: nothing is written, and the engine opens another one."""

    def work(connection: sqlite3.Connection) -> str:
        insert(connection)
        connection.close()
        return "1"

    path = tmp_path / "jobs.db"
    async with opened(path) as engine:
        await begin(engine)
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            await engine.transact("a", 1, STEP, work)
        assert query(path, "SELECT * FROM mine") == []
        assert await engine.transact("a", 1, STEP, insert) == "1"


async def test_a_completed_step_does_not_run_again(tmp_path: Path) -> None:
    """The same step twice: the second time its value comes from the record."""
    async with opened(tmp_path / "jobs.db") as engine:
        await begin(engine)
        assert await engine.transact("a", 1, STEP, insert) == "1"
        assert await engine.transact("a", 1, STEP, insert) == "1"
        assert query(tmp_path / "jobs.db", "SELECT count(*) FROM mine") == [(1,)]


async def test_others_are_not_taken_along(tmp_path: Path) -> None:
    """A transaction that fails, among many submits: all of them are written."""

    def fails(connection: sqlite3.Connection) -> str:
        insert(connection)
        raise ValueError

    async with opened(tmp_path / "jobs.db") as engine:
        await begin(engine)
        calls = [engine.submit([NewJob(f"{n}", "work", "[]")]) for n in range(20)]
        answers = await asyncio.gather(
            *calls[:10], engine.transact("a", 1, STEP, fails), *calls[10:], return_exceptions=True
        )
        assert [type(answer) for answer in answers] == [list] * 10 + [ValueError] + [list] * 10
