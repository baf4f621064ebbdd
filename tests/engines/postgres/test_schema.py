"""The schema: made once, never by an older version, apart from other applications."""

import asyncio
from typing import Any

import pytest

from lastcall.engines.postgres import PostgresEngine, _schema
from lastcall.engines.postgres._schema import VERSION
from lastcall.exceptions import EngineUnavailable, SchemaTooNew
from lastcall.jobs import Jobs
from lastcall.jobs._rows import NewJob
from tests.support.pg_wire import of_version
from tests.support.postgres import shared_url

from .support import opened, query

pytestmark = pytest.mark.loops("asyncio")

JOB = NewJob("a", "work", "[]")


async def drop(schema: str) -> None:
    await query(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')


async def test_a_newer_schema() -> None:
    """The tables were made by a later version: refused at opening, and nothing is changed."""
    await drop("newer")
    async with opened(schema="newer") as engine:
        await engine.submit([JOB])
    await query(f"UPDATE newer.meta SET version = {VERSION + 1}")
    engine = PostgresEngine(shared_url(), schema="newer")
    with pytest.raises(
        SchemaTooNew, match=f"version {VERSION + 1}, and this lastcall knows {VERSION}; upgrade"
    ):
        await engine.open()
    await engine.close()
    assert await query("SELECT id FROM newer.job") == [("a",)]
    assert await query("SELECT version FROM newer.meta") == [(VERSION + 1,)]
    await drop("newer")


async def test_another_applications_schema() -> None:
    """The schema that is named holds other tables: refused, and nothing is made in it."""
    await drop("foreign_tables")
    await query("CREATE SCHEMA foreign_tables")
    await query("CREATE TABLE foreign_tables.job (id int)")
    with pytest.raises(EngineUnavailable, match="another application"):
        await PostgresEngine(shared_url(), schema="foreign_tables").open()
    tables = await query("SELECT tablename FROM pg_tables WHERE schemaname = 'foreign_tables'")
    assert tables == [("job",)]
    await drop("foreign_tables")


async def test_schemas_with_any_name_are_apart() -> None:
    """Two schemas in one database, one with a name that must be quoted: each has its own jobs."""
    names = ['My "own" schema', "other"]
    async with opened(schema=names[0]) as first, opened(schema=names[1]) as second:
        await first.submit([JOB])
        assert await second.get(["a"]) == []
        await second.submit([JOB])
        assert [row.id for row in await first.get(["a"])] == ["a"]
    await query('DROP SCHEMA "My ""own"" schema" CASCADE')
    await drop("other")


async def test_a_user_without_rights() -> None:
    """A user who may not create a schema is told so; once somebody has made it, what it is granted suffices."""
    await drop("granted")
    await query("DROP ROLE IF EXISTS poor")
    await query("CREATE ROLE poor LOGIN")
    url = shared_url().replace("postgres@", "poor@")
    with pytest.raises(EngineUnavailable, match="lacks a right"):
        await PostgresEngine(url, schema="granted").open()
    async with opened(schema="granted"):
        pass
    await query("GRANT USAGE ON SCHEMA granted TO poor")
    await query("GRANT ALL ON ALL TABLES IN SCHEMA granted TO poor")
    await query("GRANT ALL ON ALL SEQUENCES IN SCHEMA granted TO poor")
    async with opened(url, schema="granted") as engine:
        await engine.submit([JOB])
        assert len(await engine.get(["a"])) == 1
    await drop("granted")
    await query("DROP ROLE poor")


async def test_lanes_that_vanished() -> None:
    """Somebody empties all tables under a running engine: it goes on, with lanes of their own for new jobs."""
    await drop("emptied")
    async with opened(schema="emptied") as engine:
        await engine.submit([JOB])
        await engine.submit([NewJob("k", "work", "[]", key="k")])
        await query("TRUNCATE emptied.job, emptied.lane")
        await engine.submit([JOB])
        await query("TRUNCATE emptied.job, emptied.lane")
        await engine.submit([NewJob("k", "work", "[]", key="k")])
        assert [row.id for row in await engine.get(["a", "k"])] == ["k"]
    await drop("emptied")


async def test_a_schema_that_was_dropped() -> None:
    """Somebody drops the schema under a running engine: every call says so, and what to do."""
    await drop("dropped")
    async with opened(schema="dropped") as engine:
        await engine.submit([JOB])
        await drop("dropped")
        for call in (engine.submit([JOB]), engine.get(["a"]), engine.renew("w")):
            with pytest.raises(EngineUnavailable, match="Restart the process"):
                await call
    async with opened(schema="dropped") as engine:
        assert await engine.get(["a"]) == []
    await drop("dropped")


@pytest.mark.parametrize("version", ["9.6.24", "13.22"])
async def test_a_server_that_is_too_old(version: str) -> None:
    """It says that it is older than lastcall can use: refused with both versions, and nothing is made in it."""
    await drop("too_old")
    async with of_version(shared_url(), version) as url:
        with pytest.raises(
            EngineUnavailable, match=rf"PostgreSQL {version.rpartition('.')[0]}.*needs 14\.?0? or newer"
        ):
            await PostgresEngine(url, schema="too_old").open()
    assert await query("SELECT 1 FROM pg_namespace WHERE nspname = 'too_old'") == []
    async with of_version(shared_url(), "14.0") as url, opened(url, schema="too_old"):
        pass
    await drop("too_old")


async def test_old_workers_during_a_rolling_deploy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next version's migration is made under a worker of this one, which goes on to its last job. (The
    next one is made up here: a column and an index more.) A process of this version that starts only then is
    refused."""
    await drop("rolling")
    url = f"{shared_url()}?schema=rolling"
    old = Jobs(url)

    @old.task(name="work")
    async def work(number: int) -> int:
        return number

    async with old, old.worker(concurrency=5):
        before = [await work.submit(number) for number in range(20)]
        newer: Any = (
            "ALTER TABLE lastcall.job ADD COLUMN hue text NOT NULL DEFAULT 'blue'",
            "CREATE INDEX job_hue ON lastcall.job (hue) WHERE hue <> 'blue'",
        )
        with monkeypatch.context() as deploy:
            deploy.setattr(_schema, "MIGRATIONS", (*_schema.MIGRATIONS, newer))
            deploy.setattr(_schema, "VERSION", VERSION + 1)
            await asyncio.gather(*(migrate_by_opening("rolling") for _ in range(3)))
        assert await query("SELECT version FROM rolling.meta") == [(VERSION + 1,)]
        after = [await work.options(key=f"{number}").submit(number) for number in range(20)]
        assert [await job.result(timeout=30) for job in before + after] == [*range(20), *range(20)]
        with pytest.raises(SchemaTooNew):
            await PostgresEngine(shared_url(), schema="rolling").open()
    await drop("rolling")


@pytest.mark.parametrize("version", range(1, VERSION))
async def test_an_older_schema(version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store as an older version has made it, with a job in it: brought to this version by three engines at once; the
    job is found, by its label too, and is run."""
    await drop("older")
    with monkeypatch.context() as then:
        then.setattr(_schema, "MIGRATIONS", _schema.MIGRATIONS[:version])
        then.setattr(_schema, "VERSION", version)
        await migrate_by_opening("older")
    await query("INSERT INTO older.lane (queue, task, version) VALUES ('default', 'work', '')")
    await query(
        "INSERT INTO older.job (lane, id, status, priority, max_lost, max_attempts, created_at, args, labels)"
        " VALUES (1, '01a20e6c-76c0-76dd-834b-c8909e4a69e6', 'queued', 0, 3, 100, 1.0, $1, $2)",
        *('{"number": 7}', '{"who": "ann"}'),
    )
    await asyncio.gather(*(migrate_by_opening("older") for _ in range(3)))
    assert await query("SELECT version FROM older.meta") == [(VERSION,)]
    jobs = Jobs(f"{shared_url()}?schema=older")

    @jobs.task(name="work")
    async def work(number: int) -> int:
        return number

    async with jobs, jobs.worker():
        (found,) = await jobs.find(label=("who", "ann"))
        assert await jobs.job(found.id).result(timeout=30) == 7
    await drop("older")


async def migrate_by_opening(schema: str) -> None:
    async with opened(schema=schema):
        pass


async def test_busy_tables_are_cleaned_up_early() -> None:
    """Tables whose rows change often leave room in their pages and are vacuumed long before a fifth of them is dead,
    which is the server's default."""
    await drop("tidy")
    await migrate_by_opening("tidy")
    rows = await query(
        "SELECT relname::text, reloptions FROM pg_class WHERE relnamespace = 'tidy'::regnamespace"
    )
    options = {name: dict(each.split("=") for each in given) for name, given in rows if given is not None}
    assert int(options["job"]["fillfactor"]) <= 80
    for table in ("job", "attempt", "step", "event", "stream_entry"):
        assert float(options[table]["autovacuum_vacuum_scale_factor"]) <= 0.05
    for table in ("worker", "rate"):
        assert int(options[table]["fillfactor"]) <= 50
    await drop("tidy")
