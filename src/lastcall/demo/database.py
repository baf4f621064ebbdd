"""Where the demo keeps what is done: one file for each user, or the one that was asked for."""

from __future__ import annotations

import os
import sqlite3
import stat
import tempfile
from pathlib import Path
from typing import NamedTuple

from lastcall.exceptions import JobError

_NAME = "demo.db"

# SQLite's application id, at byte 68 of every database of lastcall.
_MARK = b"last"

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Place(NamedTuple):
    """The file. `ours`: we chose it. `why_there`: why it is not in the usual place, if so."""

    path: Path
    ours: bool = True
    why_there: str = ""


def usual_place() -> Place:
    """Return the file for this user, in a folder that exists and can be written.

    That is `$XDG_STATE_HOME/lastcall`, by default `~/.local/state/lastcall`, or else a folder below the temporary ones
    that is named by the user. Raises :class:`OSError` if that cannot be used either.
    """
    try:
        folder = _state_home() / "lastcall"
        _check_writable(folder)
        return Place(folder / _NAME)
    except (OSError, RuntimeError) as error:  # RuntimeError: this user has no home
        why = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) else str(error)
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir(), f"lastcall-{user}")
    _check_writable(folder)
    _check_private(folder)
    return Place(folder / _NAME, why_there=why)


def may_be_set_aside(place: Place, error: JobError) -> bool:
    """Tell whether this error means that the file is damaged, and the file is certainly the demo's own."""
    code = getattr(error.__cause__, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _DAMAGED and (place.ours or _is_marked(place.path))


def set_aside(path: Path) -> Path:
    """Move a damaged database out of the way, with what belongs to it; the last one only is kept."""
    aside = path.with_name(path.name + ".damaged")
    for ending in ("-wal", "-shm", ""):
        file = path.with_name(path.name + ending)
        if file.exists():
            file.replace(aside.with_name(aside.name + ending))
    return aside


def _is_marked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(72)
    except OSError:
        return False
    return head[68:] == _MARK


def _state_home() -> Path:
    given = Path(os.environ.get("XDG_STATE_HOME", ""))
    # The rule for that variable: a relative path is to be ignored.
    return given if given.is_absolute() else Path.home() / ".local" / "state"


def _check_writable(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def _check_private(folder: Path) -> None:
    """Everybody may write below /tmp: somebody else could have put a folder there, or a link."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or (hasattr(os, "getuid") and found.st_uid != os.getuid()):
        raise PermissionError(1, "somebody else's folder", str(folder))
