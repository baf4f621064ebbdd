"""The schema: made once, migrated forward in one transaction, or not at all."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from lastcall.engines.sqlite import SqliteEngine, _database, _schema
from lastcall.exceptions import EngineUnavailable
from lastcall.jobs._rows import ClaimRequest, NewJob
from lastcall.testing.conformance._support import a_worker

from .support import inside, opened, query

pytestmark = pytest.mark.loops("asyncio")

JOB = NewJob("a", "work", "[]")


def next_version(monkeypatch: pytest.MonkeyPatch, *statements: str) -> None:
    """From here on this lastcall is one version further."""
    monkeypatch.setattr(_schema, "MIGRATIONS", (*_schema.MIGRATIONS, statements))
    version = _schema.VERSION + 1
    for module in (_schema, _database):
        monkeypatch.setattr(module, "VERSION", version)


def files_contents(path: Path) -> list[tuple[object, ...]]:
    return query(path, "SELECT type, name, sql FROM sqlite_schema ORDER BY name") + query(
        path, "PRAGMA user_version"
    )


async def test_a_migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of this version is opened by the next one: its jobs are there, and what is new has been added once."""
    path = tmp_path / "jobs.db"
    async with opened(path) as engine:
        await engine.submit([JOB])
    next_version(monkeypatch, "ALTER TABLE lastcall_job ADD COLUMN novelty", "CREATE TABLE lastcall_new (x)")
    for _ in range(2):
        async with opened(path) as engine:
            assert [row.id for row in await engine.get(["a"])] == ["a"]
        assert query(path, "PRAGMA user_version") == [(_schema.VERSION,)]
        assert query(path, "SELECT novelty FROM lastcall_job") == [(None,)]


def test_another_process_is_first(tmp_path: Path) -> None:
    """Between any two looks at an empty file another process makes its tables: they are ours, not somebody else's."""

    class Late:
        """A connection before each of whose statements the other process does what it can."""

        def execute(self, statement: str) -> sqlite3.Cursor:
            done = connection.execute(statement)
            if not others:
                others.append(sqlite3.connect(path, isolation_level=None))
                rows = done.fetchall()
                _schema.migrate(others[0], str(path))
                return connection.execute(f"SELECT * FROM (VALUES {', '.join(map(_as_sql, rows))})")
            return done

    path = tmp_path / "jobs.db"
    others: list[sqlite3.Connection] = []
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        assert _schema.check_owner(Late(), str(path)) in (0, _schema.VERSION)  # type: ignore[arg-type]
        assert _schema.check_owner(connection, str(path)) == _schema.VERSION
        others[0].close()


def _as_sql(row: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, row))})"


async def test_a_migration_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second statement of the step fails: the first one is taken back, and this version can still use the file."""
    path = tmp_path / "jobs.db"
    async with opened(path) as engine:
        await engine.submit([JOB])
    before = files_contents(path)
    with monkeypatch.context() as later:
        next_version(later, "CREATE TABLE lastcall_new (x)", "ALTER TABLE lastcall_missing ADD COLUMN x")
        with pytest.raises(EngineUnavailable, match="lastcall_missing"):
            await SqliteEngine(str(path)).open()
    assert files_contents(path) == before
    async with opened(path) as engine:
        assert len(await engine.get(["a"])) == 1


async def test_the_version_before_goes_on_beside_a_migration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next version migrates the file while this one has it open. Migrations only add, so this one goes on."""
    path = tmp_path / "jobs.db"
    async with opened(path) as engine:
        await engine.submit([JOB])
        with closing(sqlite3.connect(path)) as next_one:
            next_one.execute("ALTER TABLE lastcall_job ADD COLUMN novelty")
            next_one.execute(f"PRAGMA user_version = {_schema.VERSION + 1}")
        await engine.submit([JOB._replace(id="b")])
        assert len(await engine.get(["a", "b"])) == 2


async def test_whose_file_it_is(tmp_path: Path) -> None:
    """The file says so in its header, for `file` and for us."""
    path = tmp_path / "jobs.db"
    async with opened(path):
        pass
    assert path.read_bytes()[68:72] == b"last"
    assert query(path, "PRAGMA journal_mode") == [("wal",)]


@pytest.mark.parametrize(("synchronous", "number"), [("full", 2), ("normal", 1), ("off", 0)])
async def test_synchronous(tmp_path: Path, synchronous: str, number: int) -> None:
    """What was asked for is what the writing connection does."""
    async with opened(tmp_path / "jobs.db", synchronous=synchronous) as engine:
        found = await inside(engine, lambda store: store.execute("PRAGMA synchronous").fetchone())
        assert found == (number,)


async def test_a_file_of_the_first_version(tmp_path: Path) -> None:
    """It knew no suspects: of the jobs whose next loss would be the last, those without progress become some."""
    path = tmp_path / "jobs.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as first_version:
        for statement in _schema.MIGRATIONS[0]:
            first_version.execute(statement)
        first_version.execute(f"PRAGMA application_id = {_schema.APPLICATION_ID}")
        first_version.execute("PRAGMA user_version = 1")
        first_version.execute(
            "INSERT INTO lastcall_lane (id, queue, task, version, jobs) VALUES (1, 'default', 'work', '', 5)"
        )
        for number, (id, lost_in_a_row, max_lost, at_last_loss) in enumerate(
            [("fresh", 0, 3, 0), ("a", 2, 3, 1), ("got further", 2, 3, 0), ("b", 1, 2, 1), ("once", 0, 1, 0)]
        ):
            first_version.execute(
                "INSERT INTO lastcall_job (n, id, lane, status, priority, lost_in_a_row, steps_at_last_loss,"
                " max_lost, max_attempts, created_at, args) VALUES (?, ?, 1, 'queued', 0, ?, ?, ?, 100, 0, '[]')",
                (number, id, lost_in_a_row, at_last_loss, max_lost),
            )
            first_version.execute(
                "INSERT INTO lastcall_step (job, key, status, policy, main, attempt, started_at)"
                " VALUES (?, 'one', 'completed', 'replay', 1, 1, 0)",
                (number,),
            )
    async with opened(path) as engine:
        claimed = []
        for worker in "uvw":
            await engine.join(a_worker(worker))
            request = ClaimRequest(worker, 100, {("work", ""): None})
            claimed.append([job.id for job in (await engine.claim(request)).jobs])
    assert claimed == [["a"], ["b"], ["fresh", "got further", "once"]]
