"""Bytes that are not quite text: broken encodings, binary files, files too large."""

from pathlib import Path

import pytest

from lastcall.demo.corpus import Source, quoted
from lastcall.demo.reading import NotText, Text, kind_of, read_text


def read(tmp_path: Path, data: bytes, name: str = "a.txt", **options: int) -> Text:
    path = tmp_path / name
    path.write_bytes(data)
    return read_text(Source(quoted(path), name), **options)


def test_broken_utf8_is_read_as_far_as_it_goes_and_located(tmp_path: Path) -> None:
    """One bad byte in line 2: the rest is read, and the trouble names byte and line."""
    text = read(tmp_path, b"good\nbad \xff here\nrest")
    assert text.content == "good\nbad \ufffd here\nrest"
    assert text.trouble == ("not valid utf-8: byte 0xff in line 2",)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_names_the_encoding(tmp_path: Path, encoding: str) -> None:
    """Files with a byte order mark are text, even with zero bytes in them."""
    text = read(tmp_path, "grün 任务".encode(encoding))
    assert (text.content, text.trouble) == ("grün 任务", ())


def test_half_a_utf16_character_at_the_end_is_trouble_not_a_crash(tmp_path: Path) -> None:
    """A UTF-16 file that lost its last byte is still read."""
    text = read(tmp_path, "word".encode("utf-16")[:-1])
    assert text.content.startswith("wor")
    assert len(text.trouble) == 1


def test_python_declares_its_own_encoding(tmp_path: Path) -> None:
    """A coding line is obeyed; one that nobody knows is reported and read as UTF-8."""
    assert read(tmp_path, b"# coding: latin-1\nx = '\xe9'\n", "a.py").content.endswith("x = '\xe9'\n")
    unknown = read(tmp_path, b"# coding: klingon\n", "b.py")
    assert unknown.trouble == ("unknown encoding: klingon, read as utf-8",)


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\0" * 100, bytes(range(1, 32)) * 4])
def test_binary_files_are_told_from_text(tmp_path: Path, data: bytes) -> None:
    """Zero bytes or many control characters: no text."""
    with pytest.raises(NotText, match="binary"):
        read(tmp_path, data)


def test_a_huge_file_is_read_only_to_the_bound(tmp_path: Path) -> None:
    """A sparse file of many gigabytes: the first bytes are read, the true size is told."""
    path = tmp_path / "huge.txt"
    with path.open("wb") as file:
        file.write(b"word " * 30)
        file.truncate(50 << 30)
    text = read_text(Source(quoted(path), "huge.txt"), bytes_max=100)
    assert len(text.content) == 100
    assert text.size_bytes == 50 << 30
    assert text.trouble == (f"only the first 100 of {50 << 30:,} bytes were read",)


def test_a_bound_in_the_middle_of_a_character_is_no_fault_of_the_file(tmp_path: Path) -> None:
    """The cut falls inside a two-byte character: it is dropped, not called broken."""
    text = read(tmp_path, "ää".encode(), bytes_max=3)
    assert text.content == "ä"
    assert len(text.trouble) == 1 and text.trouble[0].startswith("only the first")


def test_line_ends_of_all_systems_are_the_same(tmp_path: Path) -> None:
    """Windows and old Macintosh line ends count as one line each."""
    assert read(tmp_path, b"a\r\nb\rc\n").content == "a\nb\nc\n"


def test_kinds_come_from_the_ending_or_the_first_line() -> None:
    """A script without an ending is known by its first line."""
    assert kind_of(Path("README.MD"), b"") == "markdown"
    assert kind_of(Path("run"), b"#!/usr/bin/env python3\n") == "python"
    assert kind_of(Path("run"), b"#!/bin/bash\n") == "shell"
    assert kind_of(Path("notes"), b"hello") == "text"
