"""From a URL to an engine: nothing is opened, and a URL that cannot be is named."""

from pathlib import Path

import pytest

from lastcall.engines import from_url
from lastcall.engines.sqlite import SqliteEngine
from lastcall.exceptions import BadDeclaration, UnknownEngine


@pytest.mark.parametrize(
    ("url", "path", "synchronous"),
    [
        ("sqlite:///jobs.db", "jobs.db", "full"),
        ("sqlite:///data/my jobs.db", "data/my jobs.db", "full"),
        ("sqlite:////var/lib/jobs.db", "/var/lib/jobs.db", "full"),
        ("sqlite:///jobs.db?synchronous=normal", "jobs.db", "normal"),
        ("sqlite:////jobs.db?synchronous=off", "/jobs.db", "off"),
    ],
)
def test_good_ones(url: str, path: str, synchronous: str) -> None:
    """SQLAlchemy's convention: three slashes and a relative path, four and an absolute one."""
    engine = from_url(url)
    assert isinstance(engine, SqliteEngine)
    assert (engine.path, engine.synchronous) == (path, synchronous)


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("postgresql://localhost/jobs", UnknownEngine, r"lastcall\[postgres\]"),
        ("mysql://localhost/jobs", UnknownEngine, "'mysql'"),
        ("jobs.db", UnknownEngine, "'jobs.db'"),
        ("", UnknownEngine, "sqlite:///relative.db"),
        ("sqlite", UnknownEngine, "sqlite:///relative.db"),
        ("sqlite:", BadDeclaration, "not complete"),
        ("sqlite:jobs.db", BadDeclaration, "not complete"),
        ("sqlite:/jobs.db", BadDeclaration, "not complete"),
        ("sqlite://", BadDeclaration, "names no file"),
        ("sqlite:///", BadDeclaration, "names no file"),
        ("sqlite:///folder/", BadDeclaration, "names no file"),
        ("sqlite:///?synchronous=full", BadDeclaration, "names no file"),
        ("sqlite:///:memory:", BadDeclaration, "a file to survive in"),
        ("sqlite://jobs.db", BadDeclaration, "host, 'jobs.db'"),
        ("sqlite:///jobs.db?synchronous=maybe", BadDeclaration, "'maybe'"),
        ("sqlite:///jobs.db?synchronous=", BadDeclaration, "''"),
        ("sqlite:///jobs.db?cache=shared", BadDeclaration, "'cache'"),
    ],
)
def test_bad_ones(url: str, error: type[Exception], words: str) -> None:
    """Each says what is wrong with it and how it is written."""
    with pytest.raises(error, match=words):
        from_url(url)


async def test_making_one_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is opened before `open`; a relative path is that of the folder where the engine was made."""
    monkeypatch.chdir(tmp_path)
    engine = from_url("sqlite:///jobs.db")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    await engine.open()
    await engine.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "jobs.db"]
    assert list((tmp_path / "elsewhere").iterdir()) == []
