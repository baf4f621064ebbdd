"""The schema: made once, never by an older version, apart from other applications."""

import pytest

from lastcall.engines.postgres import PostgresEngine
from lastcall.engines.postgres._schema import VERSION
from lastcall.exceptions import EngineUnavailable, SchemaTooNew
from lastcall.jobs._rows import NewJob
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
