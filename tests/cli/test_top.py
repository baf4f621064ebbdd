"""`lastcall top`: keys and rates, one frame of a database, and the screen of a process that drains, in a terminal."""

import asyncio
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from lastcall.cli._app import app as command
from lastcall.cli.top._draw import draw
from lastcall.cli.top._keys import split_keys
from lastcall.cli.top._model import Row, Snapshot, Throughput, ordered
from lastcall.cli.top._view import Cancel, Key, Quit, View, press, visible
from lastcall.jobs import Jobs
from tests.cli.program import ROOT, WAIT_SECONDS, Program
from tests.cli.test_command import MODULE
from tests.cli.test_serve_command import post, serve, served

ROWS = [
    Row("job", "j-1", "analyse", "running", 5.0, "3 of 9"),
    Row("job", "j-2", "mail", "queued", 9.0, ""),
    Row("task", "t-1", "poll [bold]x\x1b[31m", "running", 7.0, "group beat"),
]


def after(*keys: str, rows: list[Row] = ROWS) -> tuple[View, list[object]]:
    view, actions = View(), list[object]()
    for key in keys:
        view, action = press(view, key, rows)
        actions.append(action)
    return view, [action for action in actions if action is not None]


def test_a_cancel_asks_first() -> None:
    """The arrows choose, c asks, only y does it; any other key does not, and q is then no way out either."""
    assert after(Key.DOWN, Key.DOWN, "c", "y") == (View(selected="j-2"), [Cancel(ROWS[1])])
    view, actions = after("j", "c", "q")
    assert (view.asking, view.message, actions) == (None, "not cancelled", [])
    view, actions = after("c")
    assert "nothing is selected" in view.message and (view.asking, actions) == (None, [])
    assert after("q")[1] == [Quit()]


def test_what_is_filtered_out_cannot_be_cancelled() -> None:
    """A row that was chosen and is hidden now is chosen no more as far as c goes."""
    view, actions = after("j", "/", *"mail", Key.ENTER, "c")
    assert (view.asking, actions) == (None, []) and visible(view, ROWS) == [ROWS[1]]
    view, _ = after("/", *"POLL", Key.BACKSPACE, Key.ENTER, Key.TAB)
    assert (view.needle, view.shown, visible(view, ROWS)) == ("POL", "jobs", [])
    assert after("/", "x", Key.ESCAPE, Key.TAB, Key.ESCAPE)[0] == View()


@given(st.lists(st.sampled_from([*Key, *"qcyn/jkx"]), max_size=30), st.integers(0, 3))
def test_nothing_is_cancelled_without_a_question(keys: list[str], count: int) -> None:
    """Whatever is pressed: a cancel comes from a y right after a question about that very work."""
    view, rows = View(), ROWS[:count]
    for key in keys:
        before = view
        view, action = press(view, key, rows)
        if isinstance(action, Cancel):
            assert key == "y" and before.asking == action.row


def test_keys_are_split() -> None:
    """Several at once, sequences of keys that are not known, a lone escape."""
    assert list(split_keys("q\x1b[A\x1bOB\x1b[15~/\x7f\r")) == [
        "q",
        Key.UP,
        Key.DOWN,
        "/",
        Key.BACKSPACE,
        Key.ENTER,
    ]
    assert list(split_keys("\x1b")) == [Key.ESCAPE] and list(split_keys("\x1b[")) == []


def test_rates_are_never_negative_and_a_restart_is_no_burst() -> None:
    """Deleted jobs and a new process make counts fall; after an absence nobody knows when things ended."""

    def snapshot(at: float, ended: int, state: str = "open") -> Snapshot:
        return Snapshot(at, "x", state, {"completed": ended, "running": 7}, None, (), ())

    throughput = Throughput()
    assert throughput.now is None and throughput.bars() == ""
    rates = []
    for one in (
        snapshot(0, 10),
        snapshot(2, 30),
        snapshot(3, 5),
        snapshot(4, 0, "away"),
        snapshot(5, 90),
        snapshot(6, 94),
    ):
        throughput.note(one)
        rates.append(throughput.now)
    assert rates == [None, 10.0, 0.0, 0.0, 0.0, 4.0] and throughput.bars() == "█▁▄"


@pytest.mark.parametrize("rows", [None, 8, 30])
def test_a_frame_fits_and_obeys_nobody(rows: int | None) -> None:
    """However small the screen, the frame is no longer; hostile names are text; the chosen row can be seen."""
    many = ordered(Row("job", f"j-{n}", ROWS[2].name, "running", 1.0, "") for n in range(50))
    snapshot = Snapshot(
        0.0, "http://x", "draining", {"running": 50}, None, (), many,
        {"remaining_seconds": 5.0, "plan": {"total": 20}, "busy": 50, "report": None},
    )  # fmt: skip
    console = Console(width=80, force_terminal=False)
    with console.capture() as drawn:
        console.print(draw(snapshot, Throughput(), View(selected="j-49"), rows=rows, now=datetime.now()))
    lines = drawn.get().splitlines()
    assert rows is None or len(lines) <= rows
    assert "[bold]x" in drawn.get() and "\x1b" not in drawn.get() and "j-49" in drawn.get()
    assert "at most 5 s of 20 s left, 50 at work" in drawn.get()


Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Say:
    """Calls top: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        signal, "signal", lambda *_: None
    )  # its SIGTERM is the process', and this one is pytest's

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            command(["top", *arguments], prog_name="lastcall")
        assert isinstance(end.value.code, int)
        return (end.value.code, *capsys.readouterr())

    return call


def test_one_frame_of_a_database(say: Say) -> None:
    """Counts, work, a worker's lease: as a table and as JSON."""

    async def prepare() -> str:
        async with Jobs("sqlite:///jobs.db") as jobs:

            @jobs.task(name="later")
            async def later(n: int) -> None: ...

            return (await later.options(delay=3600).submit(7)).id

    job_id = asyncio.run(prepare())
    code, out, err = say("sqlite:///jobs.db", "--once")
    assert (code, err) == (0, "") and "1 scheduled" in out and job_id[-12:] in out and '{"n": 7}' in out
    code, out, _ = say("sqlite:///jobs.db", "--once", "--json")
    told = json.loads(out)
    assert (code, told["state"], told["jobs"]) == (0, "database", {"default": {"scheduled": 1}})
    assert [(row["id"], row["status"]) for row in told["rows"]] == [(job_id, "scheduled")]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["jobs.db", "--once"], "is neither a running process"),
        (["sqlite:///none.db", "--once"], "there is no database"),
        (["http://127.0.0.1:1", "--once"], "nobody answers"),
        (["sqlite:///none.db"], "standard output is no terminal"),
    ],
)
def test_what_cannot_be_watched_is_one_line(say: Say, arguments: list[str], line: str) -> None:
    """Code 2, and nothing on standard output."""
    code, out, err = say(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1) and line in err


class Screen:
    """A process in a terminal of its own; what it has written can be waited for."""

    def __init__(self, *arguments: str, folder: Path) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.before = termios.tcgetattr(slave)
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "TERM": "xterm"}
        environment.pop("COLUMNS", None)
        self._process = subprocess.Popen(
            [sys.executable, *MODULE, *arguments],
            cwd=folder, env=environment, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C is a signal
        )  # fmt: skip
        self._slave = slave
        self._changed = threading.Condition()
        self.text = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> "Screen":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(WAIT_SECONDS)
        os.close(self._slave)  # the last one: the reader sees the end
        self._reader.join(WAIT_SECONDS)
        os.close(self._master)

    def _read(self) -> None:
        try:
            while data := os.read(self._master, 1 << 16):
                with self._changed:
                    self.text += data.decode("utf-8", "replace")
                    self._changed.notify_all()
        except OSError:  # how Linux says that nobody has the other side any more
            pass

    def wait_for(self, pattern: str, *, behind: int = 0) -> int:
        """Until this was written behind that place; the place where it ends."""

        def find() -> "re.Match[str] | None":
            return re.compile(pattern).search(self.text, behind)

        with self._changed:
            assert self._changed.wait_for(find, WAIT_SECONDS), f"{pattern!r} not in {self.text[behind:]!r}"
        found = find()
        assert found is not None
        return found.end()

    def press(self, keys: str) -> int:
        behind = len(self.text)
        os.write(self._master, keys.encode())
        return behind

    def wait(self) -> int:
        return self._process.wait(WAIT_SECONDS)

    def settings(self) -> list[object]:
        return termios.tcgetattr(self._slave)


@pytest.mark.server
def test_a_person_at_the_screen(tmp_path: Path) -> None:
    """
    1. Two tasks run. One is filtered for, chosen and cancelled, after a question.
    2. The process is told to stop while the other still runs: the budget runs down on the screen, the report comes.
    3. The person leaves.
    Result: each was seen, the code is 0, and the terminal is as it was.
    """
    with serve(tmp_path, "app") as server:
        url = served(server)["url"]
        post(f"{url}/endless")
        with Screen("top", url, "--interval", "0.2", folder=tmp_path) as screen:
            screen.wait_for("endless")
            at = screen.press("/endl\rj")
            screen.wait_for("filter: endl", behind=at)
            at = screen.press("c")
            screen.wait_for(r"cancel task endless \(t-\d+\)\? y or n", behind=at)
            at = screen.press("y")
            screen.wait_for(r"t-\d+: ended", behind=at)
            screen.wait_for("1 cancelled", behind=at)
            post(f"{url}/endless")
            at = screen.press("\x1b")
            screen.wait_for("endless", behind=at)
            server.signal(signal.SIGTERM)
            screen.wait_for(r"at most 2[012] s of 22 s left, \d at work", behind=at)
            for _ in range(20):  # within a quarter of a second it is taken for an echo of the first
                server.signal(signal.SIGINT)
                if _ended(server) or "forced" in server.err:
                    break
            screen.wait_for("NOT clean", behind=at)
            screen.press("q")
            assert screen.wait() == 0
            assert screen.settings() == screen.before
        assert server.wait() == 143
    assert "\x1b[?1049l" in screen.text


def _ended(program: Program) -> bool:
    try:
        program._process.wait(0.3)
    except subprocess.TimeoutExpired:
        return False
    return True


@pytest.mark.server
@pytest.mark.parametrize(("how", "code"), [("\x03", 130), (signal.SIGTERM, 143)])
def test_a_stop_gives_the_terminal_back(tmp_path: Path, how: str | signal.Signals, code: int) -> None:
    """Ctrl-C or SIGTERM in the middle: no traceback, the first screen is back, keys are echoed again."""
    asyncio.run(_make_store(tmp_path))
    with Screen("top", "sqlite:///jobs.db", folder=tmp_path) as screen:
        screen.wait_for("nothing is at work")
        if isinstance(how, str):
            screen.press(how)
        else:
            screen._process.send_signal(how)
        assert screen.wait() == code
        assert screen.settings() == screen.before
    assert "Traceback" not in screen.text and "\x1b[?1049l" in screen.text


async def _make_store(folder: Path) -> None:
    async with Jobs(f"sqlite:///{folder}/jobs.db") as jobs:
        await jobs.open()
