"""From a URL to an engine: nothing is connected, and a URL that cannot be is named, without its password."""

import sys

import pytest

from lastcall.engines.postgres import PostgresEngine, from_url
from lastcall.exceptions import BadDeclaration, EngineUnavailable, UnknownEngine
from lastcall.jobs import Jobs
from tests.support.postgres import shared_url


def test_good_ones() -> None:
    """Our options are taken out of the URL, the driver's stay in it."""
    engine = from_url(
        "postgresql://ann:secret@db.example:5433/shop?schema=jobs&sslmode=require&pool=7&pooler=none"
    )
    assert isinstance(engine, PostgresEngine)
    assert engine.schema == "jobs"
    assert engine.address.url == "postgresql://ann:secret@db.example:5433/shop?sslmode=require"
    assert "secret" not in repr(engine) and "ann@db.example:5433/shop" in repr(engine)
    assert isinstance(Jobs("postgresql://localhost/shop").engine, PostgresEngine)


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("mysql://localhost/jobs", UnknownEngine, "'mysql'"),
        ("", UnknownEngine, "write postgresql://"),
        ("postgresql:jobs", BadDeclaration, "not complete"),
        ("postgresql://db:port/jobs", BadDeclaration, "no URL"),
        ("postgresql://db/jobs?schema=", BadDeclaration, "''"),
        ("postgresql://db/jobs?schema=pg_catalog", BadDeclaration, "pg_catalog"),
        ("postgresql://db/jobs?schema=" + "x" * 51, BadDeclaration, "at most 50"),
        ("postgresql://db/jobs?pool=0", BadDeclaration, "pool is a number"),
        ("postgresql://db/jobs?pool=many", BadDeclaration, "'many'"),
        ("postgresql://db/jobs?pooler=session", BadDeclaration, "'session'"),
    ],
)
def test_bad_ones(url: str, error: type[Exception], words: str) -> None:
    """Another scheme, half a URL, a name that PostgreSQL would cut, a number that is none."""
    with pytest.raises(error, match=words):
        from_url(url)


def test_without_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncpg is not installed: the error names the extra."""
    for name in [name for name in sys.modules if name.startswith("lastcall.engines.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(UnknownEngine, match=r"needs asyncpg.*lastcall\[postgres\]"):
        Jobs("postgresql://localhost/shop")


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda url: url.rpartition("/")[0] + "/no_such_database", "no such database"),
        (lambda url: url.replace("postgres@", "nobody_here@"), "may not log in|cannot be used"),
        (lambda url: "postgresql://postgres@127.0.0.1:1/postgres", "cannot be reached"),
        (lambda url: "postgresql://postgres@no-such-host.invalid/postgres", "cannot be reached"),
    ],
)
async def test_nobody_there(change, words: str) -> None:  # type: ignore[no-untyped-def]
    """A database, a user, a port, a host that does not exist: said so when it is opened, and closing is harmless."""
    engine = from_url(change(shared_url()))
    with pytest.raises(EngineUnavailable, match=words):
        await engine.open()
    await engine.close()
