"""Which files are found, and what is said of those that are not."""

import os
import socket
import sys
from pathlib import Path

import pytest

from lastcall.demo.corpus import Skipped, check_path, find_files, printable


def names(path: Path | None, **options: int) -> list[str]:
    return [source.name for source in find_files(path, **options).sources]


def test_links_that_form_a_loop_do_not_catch_the_walk(tmp_path: Path) -> None:
    """A folder holds a link to itself and one to its parent: the walk ends and each is reported."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.txt").write_text("words")
    (tmp_path / "deep" / "self").symlink_to(tmp_path / "deep")
    (tmp_path / "deep" / "up").symlink_to(tmp_path)

    corpus = find_files(tmp_path)

    assert [source.name for source in corpus.sources] == ["deep/a.txt"]
    assert corpus.skipped == (
        Skipped("self", "link to a folder: not followed"),
        Skipped("up", "link to a folder: not followed"),
    )


def test_a_link_to_itself_and_a_broken_link_are_reported(tmp_path: Path) -> None:
    """Opening either raises an OSError: both are skipped with the system's own words."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")

    skipped = {skip.name: skip.why for skip in find_files(tmp_path).skipped}

    assert set(skipped) == {"loop", "nowhere"}
    assert all(why.startswith("cannot be read: ") for why in skipped.values())


def test_pipes_and_sockets_are_never_opened(tmp_path: Path) -> None:
    """Opening a pipe without a writer would wait for ever: it is named instead."""
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(tmp_path)  # a socket's path may have about a hundred characters only
        try:
            server.bind("socket")
        finally:
            os.chdir(here)
        skipped = find_files(tmp_path).skipped
    assert skipped == (Skipped("pipe", "not a regular file"), Skipped("socket", "not a regular file"))


def test_caches_history_and_environments_are_passed_over(tmp_path: Path) -> None:
    """Folders that hold no one's own writing are not entered."""
    for folder in (".git", "__pycache__", "node_modules", "env", "src"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.py").write_text("")
    (tmp_path / "env" / "pyvenv.cfg").write_text("")
    assert names(tmp_path) == ["src/a.py"]


def test_a_bound_on_files_is_kept_and_said(tmp_path: Path) -> None:
    """More files than the bound: the first ones by name are taken and the report says so."""
    for name in ("c", "a", "b"):
        (tmp_path / name).write_text("x")
    corpus = find_files(tmp_path, files_max=2)
    assert [source.name for source in corpus.sources] == ["a", "b"]
    assert [skip.why for skip in corpus.skipped] == ["more than 2 files: the rest was left out"]


def test_a_very_deep_tree_does_not_meet_the_recursion_limit(tmp_path: Path) -> None:
    """Folders nested deeper than Python's stack allows calls would break a recursive walk."""
    depth = sys.getrecursionlimit() + 100
    folder = str(tmp_path)
    try:
        for _ in range(depth):
            folder += "/d"
            os.mkdir(folder)
        Path(folder, "bottom.txt").write_text("words")
        assert [source.path.name for source in find_files(tmp_path).sources] == ["bottom.txt"]
    finally:  # pytest's own cleaning up is recursive
        Path(folder, "bottom.txt").unlink(missing_ok=True)
        while folder != str(tmp_path):
            os.rmdir(folder)
            folder = folder.removesuffix("/d")


@pytest.mark.parametrize("make", ["missing", "loop", "long", "device"])
def test_a_path_that_cannot_be_used_raises(tmp_path: Path, make: str) -> None:
    """Missing, a link to itself, a name too long, a device: an OSError before anything else begins."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    paths = {
        "missing": tmp_path / "no",
        "loop": tmp_path / "loop",
        "long": tmp_path / ("x" * 300),
        "device": Path(os.devnull),
    }
    with pytest.raises(OSError):
        check_path(paths[make])
    with pytest.raises(OSError):
        find_files(paths[make])


def test_one_file_is_a_corpus_too(tmp_path: Path) -> None:
    """PATH may be a file: then it is the only one."""
    (tmp_path / "a.md").write_text("# Title")
    assert names(tmp_path / "a.md") == ["a.md"]


def test_names_that_would_break_a_terminal_are_made_printable(tmp_path: Path) -> None:
    """A name with an escape sequence, a line break and bytes that are no UTF-8 can be shown and sent."""
    os.close(os.open(os.fsencode(tmp_path) + b"/bad\x1b[2J\n\xff.txt", os.O_CREAT | os.O_WRONLY))
    (name,) = names(tmp_path)
    assert name.isprintable()
    assert name.encode("utf-8")
    assert printable("plain \u4efb\u52a1") == "plain \u4efb\u52a1"


def test_without_a_path_there_is_a_few_hundred_files_in_a_stable_order() -> None:
    """The default corpus is the same twice, of useful size, and without tests."""
    first = names(None)
    assert first == names(None)
    assert 200 <= len(first) <= 500
    assert {"asyncio/tasks.py", "json/decoder.py", "argparse.py"} <= set(first)
    assert not [name for name in first if "/test/" in name]
