"""`lastcall demo` as a person or a script uses it: real processes, real signals, real connections."""

import contextlib
import http.client
import json
import os
import pty
import re
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from lastcall.cli._demo import CannotStart, run_demo
from tests.cli.program import WAIT_SECONDS, Program

pytestmark = pytest.mark.server

FILES = 40
LEASE_SECONDS = 15.0
SENTENCE = "The harbour master of port {n} keeps a ledger of every vessel that enters the harbour.\n"

# The real command, but for two things: every analysis of a file is written down outside the process, and one thing that
# it does (the listing, a file, the comparison) takes until the test lets go of a pipe.
SLOW = """
import os, sys
import lastcall.demo.job as job
ledger = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def hold(what):
    if what == os.environ["SLOW"]:
        os.write(2, f"at the slow {what}\\n".encode())  # in one piece: others write there too
        open(os.environ["PIPE"], "rb").read(1)
def slowly(function, name_of):
    def called(*arguments):
        what = name_of(*arguments)
        if what.endswith(".md"):
            os.write(ledger, what.encode() + b"\\n")
        hold(what)
        return function(*arguments)
    return called
job.analyse_file = slowly(job.analyse_file, lambda source: source.name)
job.find_files = slowly(job.find_files, lambda path: "listing")
job.build_report = slowly(job.build_report, lambda root, results: "comparison")
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


class Demo:
    """The command on one folder, again and again, with a ledger of the files that it has analysed."""

    def __init__(self, folder: Path, pipe: Pipe) -> None:
        self.folder = folder
        self.pipe = pipe
        self._ledger = folder.parent / "ledger"

    def run(self, *arguments: str, slow: str = "", folder: Path | None = None) -> Program:
        env = {"LEDGER": str(self._ledger), "PIPE": str(self.pipe.path), "SLOW": slow}
        return Program(["-c", SLOW, "demo", str(folder or self.folder), *arguments], env=env)

    def finish(self, *arguments: str) -> Program:
        """Run it to the end of the analysis."""
        with self.run("--once", "--json", *arguments) as program:
            assert program.wait() == 0
        return program

    @property
    def analysed(self) -> Counter[str]:
        """How often each file was."""
        return Counter(self._ledger.read_text().split()) if self._ledger.exists() else Counter()


@pytest.fixture
def on_folder(folder: Path, pipe: Pipe) -> Demo:
    return Demo(folder, pipe)


NAMES = [f"{number:02}.md" for number in range(FILES)]
ONCE_EACH = Counter(NAMES)


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
import lastcall.demo.job as job
find = job.find_files
def find_late(path):
    shutil.rmtree(path)
    return find(path)
job.find_files = find_late
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
def test_a_stop_in_the_middle_is_continued_by_the_next_run(
    on_folder: Demo, number: signal.Signals, code: int
) -> None:
    """
    1. Forty files are waiting behind the one being read, and a browser follows the progress.
    2. The signal comes; the file at hand is finished afterwards. Then that file is changed, and the demo run again.
    Result: no further file is begun, the stream ends with its reason, the job is handed over; the second run says what
    it found, goes on there, and no file is analysed twice, not even the changed one.
    """
    with on_folder.run("--limit", "1", slow="00.md") as program:
        program.wait_for("at the slow 00.md")
        with get(port_of(program), "/progress") as stream:
            program.signal(number)
            program.wait_for("Stopping")
            on_folder.pipe.release()
            assert list(events(stream))[-1] == {"type": "end", "reason": "shutdown"}
        assert program.wait() == code
    assert program.out == ""
    assert re.search(r"shutdown of .*: clean", program.err)
    assert re.search(r"work: .*1 handed_over", program.err)
    assert program.err.endswith("Run it again to continue.\n")
    assert "Traceback" not in program.err
    assert on_folder.analysed == Counter(["00.md"])

    (on_folder.folder / "00.md").write_text("# Changed")
    program = on_folder.finish()
    assert (
        f"Found an unfinished analysis of {on_folder.folder}: 1 of 40 files were done before" in program.err
    )
    assert "39 of 40 files analysed in this run, 1 found done." in program.err
    assert on_folder.analysed == ONCE_EACH
    report = json.loads(program.out)
    assert [file["name"] for file in report["files"]] == NAMES
    assert report["files"][0]["headings"] == [{"level": 1, "text": "Port 0", "line": 1}]


@pytest.mark.timeout(120)
def test_killed_at_every_point_it_goes_on_there(on_folder: Demo) -> None:
    """
    1. The process is killed while it lists the files, in its first, a middle and its last file, and in the comparison.
    2. Each time it is run again.
    Result: each run says exactly what was done, and only the file in flight is analysed again.
    """
    points = {"listing": None, "00.md": None, "20.md": 0, "39.md": 20, "comparison": 39}
    for slow, found in points.items():
        with on_folder.run("--limit", "1", slow=slow) as program:
            program.wait_for(f"at the slow {slow}")
            program.signal(signal.SIGKILL)
            assert program.wait() == -signal.SIGKILL
        said = re.search(r"Found an unfinished analysis of .*: (.*); continuing", program.err)
        if slow == "listing":
            assert said is None
        elif found is None:
            assert said is not None and said[1] == "its files were not listed yet"
        else:
            assert said is not None and said[1] == f"{found} of 40 files were done before"

    program = on_folder.finish()
    assert "40 of 40 files were done before" in program.err
    assert "0 of 40 files analysed in this run, 40 found done." in program.err
    assert [file["name"] for file in json.loads(program.out)["files"]] == NAMES
    assert on_folder.analysed == ONCE_EACH + Counter(["00.md", "20.md", "39.md"])


def test_after_a_kill_it_does_not_wait_for_the_dead_worker_s_lease(on_folder: Demo) -> None:
    """
    1. Four files are read at a time; the process is killed in one of them.
    2. It is run again at once, long before the dead worker's lease of 15 s is over.
    Result: it goes on within seconds, and no more than the four in flight are analysed again.
    """
    with on_folder.run(slow="20.md") as program:
        program.wait_for("at the slow 20.md")
        program.signal(signal.SIGKILL)
        program.wait()
    with on_folder.run("--once", "--json") as program:
        found = int(program.wait_for(r"(\d+) of 40 files were done before")[1])
        began = time.monotonic()
        program.wait_for(r"files analysed in this run")
        assert time.monotonic() - began < LEASE_SECONDS / 3
        assert program.wait() == 0
    assert f"{40 - found} of 40 files analysed in this run, {found} found done." in program.err
    again = on_folder.analysed - ONCE_EACH
    assert again["20.md"] == 1
    assert again.total() <= 4
    assert set(on_folder.analysed) == set(NAMES)


def test_the_progress_bar_starts_where_it_was(on_folder: Demo) -> None:
    """On a terminal: the first thing drawn after a kill is a bar with what was done."""
    with on_folder.run("--limit", "1", slow="30.md") as program:
        program.wait_for("at the slow 30.md")
        program.signal(signal.SIGKILL)
        program.wait()
    terminal, other_side = pty.openpty()
    command = ["-m", "lastcall", "demo", str(on_folder.folder), "--once"]
    with open(terminal, "rb", buffering=0) as screen:
        with Program(command, env={"TERM": "xterm"}, stderr=other_side) as program:
            os.close(other_side)
            drawn = b""
            with contextlib.suppress(OSError):  # how a terminal tells that the other side is gone
                while chunk := screen.read(1 << 16):
                    drawn += chunk
            assert program.wait() == 0
    counts = re.findall(r"(\d+)/(\d+|\?)", drawn.decode().partition("continuing")[2])
    assert counts[0] == ("30", "40")


def test_a_second_ctrl_c_forces(on_folder: Demo) -> None:
    """
    1. A thread reads from a pipe that nobody writes to: it will never end.
    2. Ctrl-C: the demo waits for it. Ctrl-C again, and later another run.
    Result: the process ends without the thread, names it with its stack, and the exit code says so; the next run
    continues with that file.
    """
    with on_folder.run(slow="07.md") as program:
        program.wait_for("at the slow 07.md")
        program.signal(signal.SIGINT)
        program.wait_for("Stopping")
        program.signal(signal.SIGINT)
        assert program.wait() == 130
    assert "forced" in program.err, program.err
    assert "read 07.md" in program.err
    assert "in hold" in program.err
    program = on_folder.finish()
    assert "files were done before" in program.err
    assert on_folder.analysed == ONCE_EACH + Counter(["07.md"])


def test_fresh_forgets_what_was_found(on_folder: Demo) -> None:
    """A dead process has left an unfinished analysis behind: every file is analysed again."""
    with on_folder.run("--limit", "1", slow="05.md") as program:
        program.wait_for("at the slow 05.md")
        program.signal(signal.SIGKILL)
        program.wait()
    program = on_folder.finish("--fresh")
    assert "Found" not in program.err
    assert "40 of 40 files analysed in this run, 0 found done." in program.err
    assert on_folder.analysed == ONCE_EACH + Counter(NAMES[:6])


def test_after_a_complete_one_the_analysis_is_a_new_one(on_folder: Demo) -> None:
    """
    1. An analysis is complete, and its service still runs; then a file is changed.
    2. The demo is run again.
    Result: all files are read again, by whichever of the two processes is free.
    """
    with on_folder.run() as program:
        program.wait_for("Still serving")
        (on_folder.folder / "00.md").write_text("# Changed")
        later = on_folder.finish()
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
    assert "Found" not in later.err
    assert on_folder.analysed == ONCE_EACH + ONCE_EACH
    assert json.loads(later.out)["files"][0]["headings"][0]["text"] == "Changed"


def test_another_folder_s_unfinished_analysis_is_left_alone(on_folder: Demo, tmp_path: Path) -> None:
    """
    1. One folder's analysis was killed, and another folder is analysed.
    2. Then the first one again, by another name for the same path.
    Result: the second run reads no file of the first folder, and the third finds what was done.
    """
    other = tmp_path / "other"
    other.mkdir()
    (other / "x.md").write_text("# X")
    (tmp_path / "link").symlink_to(on_folder.folder)
    with on_folder.run("--limit", "1", slow="05.md") as program:
        program.wait_for("at the slow 05.md")
        program.signal(signal.SIGKILL)
        program.wait()
    before = on_folder.analysed
    with on_folder.run("--once", folder=other) as program:
        assert program.wait() == 0
    assert on_folder.analysed - before == Counter(["x.md"])
    with on_folder.run("--once", folder=tmp_path / "link") as program:
        assert program.wait() == 0
    assert "5 of 40 files were done before" in program.err


def test_two_at_once_share_the_analysis(on_folder: Demo) -> None:
    """Both begin at the same moment, on a store that does not exist yet: both report, no file is read twice."""
    arguments = ("--once", "--json")
    with on_folder.run(*arguments, slow="39.md") as one, on_folder.run(*arguments, slow="39.md") as other:
        port_of(one)
        port_of(other)  # by now both have found or begun it, and neither can have ended it
        on_folder.pipe.release()
        assert (one.wait(), other.wait()) == (0, 0)
    assert json.loads(one.out) == json.loads(other.out)
    assert on_folder.analysed == ONCE_EACH


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_second_of_two_takes_over(on_folder: Demo, number: signal.Signals) -> None:
    """
    1. The first demo is in its first file when a second one is started: that one watches.
    2. The first is stopped, or killed.
    Result: the second goes on with the next file, or after a kill with the same.
    """
    with on_folder.run("--limit", "1", slow="00.md") as first:
        first.wait_for("at the slow 00.md")
        with on_folder.run("--once", "--json") as second:
            second.wait_for("Found an unfinished analysis")
            first.signal(number)
            if number is signal.SIGINT:
                first.wait_for("Stopping")
                on_folder.pipe.release()
            first.wait()
            assert second.wait() == 0
    assert [file["name"] for file in json.loads(second.out)["files"]] == NAMES
    assert on_folder.analysed == ONCE_EACH + Counter(["00.md"] if number is signal.SIGKILL else [])


def test_one_that_only_watches_reports_too(on_folder: Demo) -> None:
    """The first does all the work; the second follows it in its own page and terminal, and says whose work it was."""
    with on_folder.run("--once", "--json", "--limit", "1", slow="00.md") as first:
        first.wait_for("at the slow 00.md")
        with on_folder.run("--once", "--json") as second:
            second.wait_for("Found an unfinished analysis")
            on_folder.pipe.release()
            assert (first.wait(), second.wait()) == (0, 0)
    assert first.out == second.out
    assert "0 of 40 files analysed in this run, 0 found done, 40 analysed by another process" in second.err
    assert on_folder.analysed == ONCE_EACH


def test_fresh_ends_the_analysis_that_another_one_runs(on_folder: Demo) -> None:
    """
    1. A demo is in its first file when a second one is started with --fresh.
    2. Both are held up no longer.
    Result: the first says that its analysis was cancelled, and the second has read every file.
    """
    with on_folder.run("--once", "--limit", "1", slow="00.md") as first:
        first.wait_for("at the slow 00.md")
        with on_folder.run("--once", "--json", "--fresh") as second:
            port_of(second)
            on_folder.pipe.release()
            first.wait_for("no report: .* was cancelled")
            on_folder.pipe.release()  # the first has a free place now, and may have begun with the second's job
            assert (first.wait(), second.wait()) == (1, 0)
    assert [file["name"] for file in json.loads(second.out)["files"]] == NAMES
    assert "Traceback" not in first.err + second.err


# --- where it is kept ---


def test_an_unwritable_state_folder_is_replaced_by_a_temporary_one(
    on_folder: Demo, tmp_path: Path, state_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the reason to fail; which place it is instead is said."""
    state_home.write_text("a file where a folder should be")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    place = tmp_path / "tmp" / f"lastcall-{os.getuid()}" / "demo.db"
    said = f"lastcall: Not a directory: {state_home / 'lastcall'}. What is done is kept in {place}."
    assert said in on_folder.finish().err
    assert place.exists()


def test_a_temporary_folder_of_somebody_else_is_refused(
    folder: Path, tmp_path: Path, state_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link waits where the folder should be: one clear line, nothing is written through it."""
    state_home.write_text("")
    for name in ("tmp", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "tmp" / f"lastcall-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    line = refusal(folder)
    assert "somebody else's folder" in line and "--db" in line
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_user_without_a_home_is_served_too(
    on_folder: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither HOME nor an entry in the user database, as in some containers."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.delenv("HOME", raising=False)
    nobody = """
import pwd
def getpwuid(uid):
    raise KeyError(uid)
pwd.getpwuid = getpwuid
from lastcall.cli import main
main()
"""
    with Program(["-c", nobody, "demo", str(on_folder.folder), "--once"]) as program:
        assert program.wait() == 0
    assert f"What is done is kept in {tmp_path / 'tmp'}" in program.err


def refusal(folder: Path, *, db: Path | None = None, fresh: bool = False) -> str:
    """What the command says when it does not even begin, asked in this process to save the start of another."""
    with pytest.raises(CannotStart) as refused:
        run_demo(folder, once=True, as_json=False, port=0, limit=1, db=db, fresh=fresh)
    return str(refused.value)


def test_a_damaged_database_is_one_clear_line_and_fresh_helps(folder: Path, state_home: Path) -> None:
    """
    1. Where the demo keeps what is done there is something else.
    2. It is run again with --fresh.
    Result: exit code 2 and what to do; then the file is moved away, and the analysis is done.
    """
    database = state_home / "lastcall" / "demo.db"
    database.parent.mkdir(parents=True)
    database.write_bytes(b"no database at all" * 1000)
    with demo(folder, "--once") as program:
        assert program.wait() == 2
    assert (program.out, program.err.count("\n")) == ("", 1)
    assert all(word in program.err for word in (str(database), "--fresh", "--db"))
    with demo(folder, "--once", "--fresh") as program:
        assert program.wait() == 0
    assert "40 of 40 files analysed in this run" in program.err
    assert database.with_name("demo.db.damaged").read_bytes().startswith(b"no database")


def test_a_database_damaged_inside_is_known_as_ours(folder: Path, tmp_path: Path) -> None:
    """The file given by --db begins as one of lastcall's, and is rubbish after that: --fresh may move it away."""
    database = tmp_path / "my.db"
    with demo(folder, "--once", "--db", database) as program:
        assert program.wait() == 0
    with database.open("r+b") as file:
        file.seek(4096)
        file.write(b"rubbish!" * 4096)
    assert "--fresh" in refusal(folder, db=database)
    with demo(folder, "--once", "--db", database, "--fresh") as program:
        assert program.wait() == 0


def test_other_people_s_files_are_never_moved_away(folder: Path, tmp_path: Path) -> None:
    """--db names a text by mistake: refused, with --fresh too, and the text is as it was."""
    notes = tmp_path / "notes.txt"
    notes.write_text("my notes\n" * 1000)
    for fresh in (False, True):
        assert "Choose another file with --db" in refusal(folder, db=notes, fresh=fresh)
    assert notes.read_text() == "my notes\n" * 1000
    assert "no folder" in refusal(folder, db=tmp_path / "nowhere" / "demo.db")
