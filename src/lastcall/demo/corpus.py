"""Which files there are to analyse, and which are left out and why."""

from __future__ import annotations

import os
import stat
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

MAX_FILES = 5_000

# Folders that hold copies, caches or history instead of somebody's own writing.
_NOT_ENTERED = frozenset({"__pycache__", "node_modules", "site-packages", "dist-packages", "venv"})

# The part of the standard library every installation has, in every version, tests excluded.
_DEFAULT_PACKAGES = (
    "asyncio", "collections", "concurrent", "dbm", "email", "html", "http", "importlib", "json", "logging",
    "multiprocessing", "re", "sqlite3", "tomllib", "unittest", "urllib", "wsgiref", "xml", "zoneinfo",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Source:
    """A file to analyse: where it is (as :func:`quoted` writes it), and the name people see."""

    place: str
    name: str

    @property
    def path(self) -> Path:
        """Where it is."""
        return unquoted(self.place)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or folder that was left out, and why."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """Every file below `root`, sorted by name, so that two runs see the same thing in the same order."""

    root: str
    sources: tuple[Source, ...]
    skipped: tuple[Skipped, ...]


def check_path(path: Path) -> None:
    """Raise :class:`OSError` if `path` is not a readable file or folder, before anything else is begun."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        with os.scandir(path):
            pass
    elif stat.S_ISREG(mode):
        with path.open("rb"):
            pass
    else:
        raise OSError(f"neither a file nor a folder: {printable(str(path))}")


def find_files(path: Path | None = None, *, files_max: int = MAX_FILES) -> Corpus:
    """List the files below `path`; without one, a few hundred files of Python's own standard library.

    A link to a folder is not entered, so a loop of links cannot catch the walk. Folders that hold
    caches, history or installed packages are passed over. At most `files_max` files are taken.
    Raises :class:`OSError` if `path` itself cannot be read.

    >>> corpus = find_files(Path("docs"))
    >>> [source.name for source in corpus.sources]
    ['index.md', 'shutdown.md']
    """
    skipped: list[Skipped] = []
    if path is None:
        root = Path(sysconfig.get_path("stdlib"))
        found = _standard_library(root, skipped)
    else:
        root = path
        check_path(root)
        found = iter([root]) if root.is_file() else _walk(root, skipped)

    sources: list[Source] = []
    for file in found:
        name = printable(file.name if file == root else file.relative_to(root).as_posix())
        why = _why_not(file)
        if why is None and len(sources) >= files_max:
            skipped.append(
                Skipped(printable(str(root)), f"more than {files_max} files: the rest was left out")
            )
            break
        if why is None:
            sources.append(Source(quoted(file), name))
        else:
            skipped.append(Skipped(name, why))
    return Corpus(printable(str(root)), tuple(sources), tuple(skipped))


def quoted(path: Path) -> str:
    """Return `path` as a text that JSON can hold: what a path may contain need not be text at all.

    >>> quoted(Path("/srv/docs/a b.md"))
    '/srv/docs/a%20b.md'
    """
    return quote(os.fsencode(path))


def unquoted(place: str) -> Path:
    """Return the path that :func:`quoted` was given."""
    return Path(os.fsdecode(unquote_to_bytes(place)))


def printable(text: str) -> str:
    """Return `text` with every character that a terminal or a JSON reader could stumble over replaced."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _standard_library(root: Path, skipped: list[Skipped]) -> Iterator[Path]:
    yield from sorted(root.glob("[a-z]*.py"))
    for package in _DEFAULT_PACKAGES:
        # Some versions ship a package's tests inside it, others do not.
        yield from (file for file in _walk(root / package, skipped, suffix=".py") if "test" not in file.parts)


def _walk(root: Path, skipped: list[Skipped], *, suffix: str = "") -> Iterator[Path]:
    """Walk depth first with a stack of our own: a deep tree must not meet the recursion limit."""
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                children = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            skipped.append(
                Skipped(printable(str(folder)), f"folder cannot be read: {error.strerror or error}")
            )
            continue
        subfolders = []
        for child in children:
            if _is_folder(child):
                if _is_entered(child, skipped):
                    subfolders.append(Path(child.path))
            elif child.name.endswith(suffix):
                yield Path(child.path)
        folders.extend(reversed(subfolders))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself is not a folder
        return False


def _is_entered(entry: os.DirEntry[str], skipped: list[Skipped]) -> bool:
    if entry.is_symlink():
        skipped.append(Skipped(printable(entry.name), "link to a folder: not followed"))
        return False
    if entry.name.startswith(".") or entry.name in _NOT_ENTERED:
        return False
    return not os.path.exists(os.path.join(entry.path, "pyvenv.cfg"))


def _why_not(file: Path) -> str | None:
    try:
        mode = file.stat().st_mode
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    # Opening a pipe or a device could wait for ever.
    return None if stat.S_ISREG(mode) else "not a regular file"
