"""Where the demo keeps what is done."""

import os
import tempfile
from pathlib import Path

import pytest

from lastcall.demo.database import set_aside, usual_place


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files of the test's own."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_it_is_below_the_state_folder_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """XDG_STATE_HOME if it is an absolute path, else below the home; folders are made, for this user only."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert usual_place().path == tmp_path / "state" / "lastcall" / "demo.db"
    for ignored in ("relative/state", ""):
        monkeypatch.setenv("XDG_STATE_HOME", ignored)
        place = usual_place()
        assert place.path == tmp_path / "home" / ".local" / "state" / "lastcall" / "demo.db"
        assert place.why_there == ""
    assert place.path.parent.stat().st_mode & 0o777 == 0o700
    assert list(place.path.parent.iterdir()) == []


def test_a_link_among_the_temporary_files_is_not_followed(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody may write there, so a link could lead anywhere."""
    monkeypatch.setenv("XDG_STATE_HOME", os.devnull)
    (tmp_path / "elsewhere").mkdir()
    (temporary / f"lastcall-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="somebody else's folder"):
        usual_place()


def test_a_database_is_set_aside_with_its_log(tmp_path: Path) -> None:
    """Moved together, so that what the log holds can still be saved; one that was set aside before is replaced."""
    for name in ("demo.db", "demo.db-wal", "demo.db.damaged"):
        (tmp_path / name).write_text(name)
    assert set_aside(tmp_path / "demo.db") == tmp_path / "demo.db.damaged"
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {
        "demo.db.damaged": "demo.db",
        "demo.db.damaged-wal": "demo.db-wal",
    }
