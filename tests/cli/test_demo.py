"""`lastcall demo` as a person or a script uses it: real processes, real signals, real connections."""

import http.client
import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.cli.program import WAIT_SECONDS, Program

pytestmark = pytest.mark.server

FILES = 40
SENTENCE = "The harbour master of port {n} keeps a ledger of every vessel that enters the harbour.\n"

# The real command, but for one thing: analysing one file takes until the test lets go of a pipe.
SLOW = """
import pathlib, sys
import lastcall.demo.app as service
analyse, pipe, slow = service.analyse_file, pathlib.Path(sys.argv.pop()), sys.argv.pop()
def analyse_slowly(source):
    if source.name == slow:
        print("at the slow file", file=sys.stderr)
        pipe.open("rb").read(1)
    return analyse(source)
service.analyse_file = analyse_slowly
from lastcall.cli import main
main()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(FILES):
        (folder / f"{number:02}.md").write_text(f"# Port {number}\n\n" + SENTENCE.format(n=number) * 3)
    return folder


class Pipe:
    """Holds the slow file up until `release`."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._end = os.open(path, os.O_RDWR)  # for writing alone it would wait for a reader

    def release(self) -> None:
        os.write(self._end, b"!")

    def close(self) -> None:
        os.close(self._end)


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Pipe]:
    with closing(Pipe(tmp_path / "pipe")) as pipe:
        yield pipe


def demo(*arguments: object) -> Program:
    return Program(["-m", "lastcall", "demo", *map(str, arguments)])


def slow_demo(folder: Path, slow: str, pipe: Pipe, *arguments: str) -> Program:
    return Program(["-c", SLOW, "demo", str(folder), *arguments, slow, str(pipe.path)])


def port_of(program: Program) -> int:
    return int(program.wait_for(r"http://127\.0\.0\.1:(\d+)")[1])


@contextmanager
def get(port: int, path: str) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_SECONDS)
    try:
        connection.request("GET", path)
        yield connection.getresponse()
    finally:
        connection.close()


def events(response: http.client.HTTPResponse) -> Iterator[dict[str, object]]:
    """The items of a stream; ends only with the proper end of the response, and raises if it is cut."""
    for block in response.read().decode().split("\n\n"):
        for line in block.splitlines():
            if line.startswith("data:"):
                yield json.loads(line.removeprefix("data:"))


def test_once_prints_json_and_nothing_else(folder: Path) -> None:
    """A script reads standard output: it is one JSON document, complete, and the exit code is 0."""
    with demo(folder, "--once", "--json") as program:
        assert program.wait() == 0
    report = json.loads(program.out)
    assert report["complete"] is True
    assert [file["name"] for file in report["files"]] == [f"{number:02}.md" for number in range(FILES)]


def test_once_prints_a_report_for_people(folder: Path) -> None:
    """Without --json the same in words, progress on the other output."""
    with demo(folder, "--once") as program:
        assert program.wait() == 0
    assert f"{FILES} text files" in program.out
    assert "harbour" in program.out
    assert f"of {FILES} files" in program.err


def test_once_without_a_path_analyses_python_itself() -> None:
    """What `make demo` shows: hundreds of real files, none of them lost."""
    with demo("--once", "--json") as program:
        assert program.wait() == 0
    report = json.loads(program.out)
    assert report["complete"] is True
    assert len(report["files"]) + len(report["skipped"]) == report["files_found"] >= 200
    assert "asyncio/tasks.py" in {file["name"] for file in report["files"]}


def test_other_people_s_warnings_are_not_shown(folder: Path) -> None:
    """A doubtful escape makes Python's parser warn: the person who looks at the file did not write it."""
    (folder / "doubtful.py").write_text('x = "\\d" is 1\n')
    with demo(folder, "--once") as program:
        assert program.wait() == 0
    assert "Warning" not in program.err


def test_a_folder_that_vanishes_is_no_traceback(folder: Path, tmp_path: Path) -> None:
    """Deleted between the check and the listing: an honest exit code, one report of the error."""
    program_text = """
import shutil, sys
import lastcall.demo.app as service
find = service.find_files
def find_late(path):
    shutil.rmtree(path)
    return find(path)
service.find_files = find_late
from lastcall.cli import main
main()
"""
    with Program(["-c", program_text, "demo", str(folder), "--once"]) as program:
        assert program.wait() == 1
    assert "No such file or directory" in program.err
    assert program.out == ""


def test_every_page_of_the_service_answers(folder: Path) -> None:
    """Progress and summary end as completed streams; the report is the one the terminal shows."""
    with demo(folder, "--json") as program:
        port = port_of(program)
        with get(port, "/progress") as response:
            steps = list(events(response))
        assert steps[-1] == {"type": "end", "reason": "completed"}
        assert steps[-2] == {"state": "done", "done": FILES, "of": FILES, "latest": ""}
        with get(port, "/report") as response:
            report = json.load(response)
        with get(port, "/summary") as response:
            words = [str(item["text"]) for item in events(response) if "text" in item]
        assert "".join(words) == report["summary"]
        with get(port, "/") as response:
            assert response.status == 200 and "<title>lastcall demo" in response.read().decode()
        with get(port, "/readyz") as response:
            assert response.status == 200
        program.wait_for("Still serving")
        program.signal(signal.SIGINT)
        assert program.wait() == 0
    assert json.loads(program.out) == report
    assert re.search(r"shutdown of .*: clean", program.err)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_in_the_middle_ends_at_a_file_boundary(
    folder: Path, pipe: Pipe, number: signal.Signals, code: int
) -> None:
    """
    1. Forty files are waiting behind the one being read, and a browser follows the progress.
    2. The signal comes; the file at hand is finished afterwards.
    Result: no further file is begun, the report of the part is printed, the stream ends with its reason.
    """
    with (
        slow_demo(folder, "00.md", pipe, "--limit", "1") as program,
        get(port_of(program), "/progress") as stream,
    ):
        program.wait_for("at the slow file")
        program.signal(number)
        program.wait_for("Stopping")
        pipe.release()
        assert list(events(stream))[-1] == {"type": "end", "reason": "shutdown"}
        assert program.wait() == code
    assert "stopped early" in program.out
    assert "00.md" in program.out and "01.md" not in program.out
    assert re.search(r"shutdown of .*: clean", program.err)
    assert "Traceback" not in program.err


def test_a_second_ctrl_c_forces(folder: Path, pipe: Pipe) -> None:
    """
    1. A thread reads from a pipe that nobody writes to: it will never end.
    2. Ctrl-C: the demo waits for it. Ctrl-C again.
    Result: the process ends without the thread, names it with its stack, and the exit code says so.
    """
    with slow_demo(folder, "07.md", pipe) as program:
        program.wait_for("at the slow file")
        program.signal(signal.SIGINT)
        program.wait_for("Stopping")
        program.signal(signal.SIGINT)
        assert program.wait() == 130
    assert "forced" in program.err, program.err
    assert "read 07.md" in program.err
    assert "in analyse_slowly" in program.err
