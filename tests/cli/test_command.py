"""The command line itself: help, version, bad input."""

import os
import pty
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lastcall._version import __version__
from tests.cli.program import ROOT, Program

MODULE = ["-m", "lastcall"]


def run(*arguments: str, env: dict[str, str] | None = None) -> Program:
    with Program([*MODULE, *arguments], env=env) as program:
        program.wait()
    return program


@pytest.mark.parametrize(("arguments", "said"), [(["--help"], "demo"), (["demo", "--help"], "Exit code")])
def test_help_is_there(arguments: list[str], said: str) -> None:
    """Both helps name what there is and end with 0."""
    program = run(*arguments)
    assert program.code == 0
    assert said in program.out


def test_the_version_is_the_package_s() -> None:
    """The command and the package never disagree."""
    program = run("--version")
    assert (program.code, program.out) == (0, f"lastcall {__version__}\n")


def one_line_and_nothing_else(program: Program) -> str:
    assert program.code == 2
    assert program.out == ""
    assert program.err.count("\n") == 1
    return program.err


def test_a_path_that_does_not_exist_is_one_clear_line(tmp_path: Path) -> None:
    """No traceback, no server, exit code 2, and the path is named."""
    line = one_line_and_nothing_else(run("demo", str(tmp_path / "no such folder"), "--once"))
    assert "no such folder: No such file or directory" in line


def test_a_path_that_cannot_be_read_is_one_clear_line(tmp_path: Path) -> None:
    """A link that leads to itself, and a device that is neither file nor folder."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "cannot read" in one_line_and_nothing_else(run("demo", str(tmp_path / "loop"), "--once"))
    assert "neither a file nor a folder" in one_line_and_nothing_else(run("demo", os.devnull, "--once"))


def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    """Somebody listens there already: the port is named, nothing is analysed."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = one_line_and_nothing_else(run("demo", str(tmp_path), "--port", str(port)))
    assert f"127.0.0.1:{port}" in line
    assert "--port" in line


@pytest.mark.parametrize(
    "arguments", [["--limit", "0"], ["--port", "65536"], ["--port", "x"], ["--nonsense"]]
)
def test_options_out_of_range_are_usage_errors(arguments: list[str]) -> None:
    """Refused before anything begins."""
    program = run("demo", "--once", *arguments)
    assert (program.code, program.out) == (2, "")
    assert "Traceback" not in program.err


@pytest.mark.parametrize("missing", ["typer", "rich", "uvicorn", "fastapi"])
def test_a_missing_package_names_the_extra(missing: str) -> None:
    """Installed without extras: the command says what to install."""
    code = f"import sys; sys.modules[{missing!r}] = None; import lastcall.cli; lastcall.cli.main()"
    with Program(["-c", code, "demo", "--once"]) as program:
        assert program.wait() == 2
    assert (
        program.err
        == f"lastcall: this command needs {missing}. Install it with: pip install 'lastcall[demo]'\n"
    )


def test_a_terminal_gets_a_progress_bar_and_the_report(tmp_path: Path) -> None:
    """On a real terminal the live display works and ends; the report follows it."""
    (tmp_path / "a.md").write_text("# Title\n\nThe quick harbour master keeps a ledger of every vessel.\n")
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, *MODULE, "demo", str(tmp_path), "--once"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    seen = b""
    try:
        while chunk := os.read(master, 1 << 16):
            seen += chunk
    except OSError:  # how a terminal tells that the other side is gone
        pass
    finally:
        os.close(master)
    assert process.wait(60) == 0, seen.decode()
    assert b"\x1b[" in seen
    assert b"Key terms" in seen
    assert b"Traceback" not in seen


def test_an_output_that_knows_only_ascii_gets_question_marks(tmp_path: Path) -> None:
    """Quotation marks and frames cannot be written there: no traceback for that."""
    (tmp_path / "a.md").write_text(
        "The gr\u00fcn harbour master keeps a ledger of every \u4efb\u52a1 vessel there.\n"
    )
    program = run("demo", str(tmp_path), "--once", env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert program.code == 0
    assert "Traceback" not in program.err
    assert program.out.isascii()


def test_a_report_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    """Not one byte of the report can be written: no traceback, and the exit code says so."""
    with open("/dev/full", "wb") as full:
        process = subprocess.run(
            [sys.executable, *MODULE, "demo", str(tmp_path), "--once"],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert process.returncode == 1
    assert "lastcall: cannot write the report: " in process.stderr
    assert "Traceback" not in process.stderr


def test_a_reader_that_leaves_ends_the_command_quietly(tmp_path: Path) -> None:
    """`lastcall demo --once | head -0`: no traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        process = subprocess.run(
            [sys.executable, *MODULE, "demo", str(tmp_path), "--once"],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    finally:
        os.close(writing)
    assert "Traceback" not in process.stderr
    assert "Exception ignored" not in process.stderr
