"""No test of the command writes into the home of whoever runs it; and a folder that is on a disk."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the demo keeps what is done, unless told otherwise: a new place for each test."""
    folder = tmp_path / "state"
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    return folder


@pytest.fixture
def on_disk() -> Iterator[Path]:
    """A folder outside of memory, where a test run and some machines have their temporary files: `doctor` objects."""
    lasting = Path("/var/tmp")
    with tempfile.TemporaryDirectory(dir=lasting if lasting.is_dir() else None) as folder:
        yield Path(folder).resolve()
