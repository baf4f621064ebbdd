"""`lastcall serve`, `drain` and `streams tail` together, as processes that stop each other."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lastcall.cli._app import app
from lastcall.streams import Entry, TextView
from tests.cli.program import Program
from tests.cli.test_command import MODULE
from tests.cli.test_worker_command import info, submit

APP = "tests.cli.served_app"

pytestmark = pytest.mark.server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def release(folder: Path) -> Iterator[Callable[[int], object]]:
    """Lets so many parts, or requests, end."""
    os.mkfifo(folder / "pipe")
    pipe = os.open(folder / "pipe", os.O_RDWR)
    try:
        yield lambda count: os.write(pipe, b"." * count)
    finally:
        os.close(pipe)


def run(folder: Path, *arguments: str) -> Program:
    return Program([*MODULE, *arguments], cwd=folder)


def serve(folder: Path, name: str = "app", *options: str, port: int = 0) -> Program:
    return run(folder, "serve", f"{APP}:{name}", "--port", str(port), "--json", *options)


def served(program: Program) -> Any:
    """What it says once it serves."""
    return json.loads(program.wait_for(r"^\{.*\}\n", on="out")[0])


def post(url: str) -> None:
    with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=30) as answer:
        assert answer.status == 200


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_a_drain_by_http_ends_the_server_and_nothing_is_cut(
    folder: Path, release: Callable[[int], object]
) -> None:
    """
    1. A request is in flight when somebody says `lastcall drain URL`.
    2. It is told who is at work; the request ends.
    Result: the request is answered, the drain has the report, both processes end with 0.
    """
    answers: list[bytes] = []
    with serve(folder) as server:
        told = served(server)

        def ask() -> None:
            with urllib.request.urlopen(f"{told['url']}/slow", timeout=60) as answer:
                answers.append(answer.read())

        client = threading.Thread(target=ask)
        client.start()
        server.wait_for("slow begins", on="out")
        with run(folder, "drain", told["url"]) as drain:
            drain.wait_for("draining, 1 at work: GET /slow")
            release(1)
            assert drain.wait() == 0
        assert server.wait() == 0
        client.join(30)
    assert answers == [b'"done"']
    assert re.search(r"^shutdown of lastcall \(shutdown\): clean", drain.out)
    assert "shutdown of lastcall (shutdown): clean" in server.err and "slow HTTP" in server.err
    chosen = {choice["name"]: choice["value"] for choice in told["chosen"]}
    assert (told["pid"], told["lastcall"]) == (server._process.pid, True)
    assert (chosen["timeout_graceful_shutdown"], chosen["lifespan"], chosen["workers"]) == (23, "on", 1)


SETUPS = {
    "hypercorn -w 1": ["hypercorn", "-w", "1", "--graceful-timeout", "20", "-b", "127.0.0.1:{port}"],
    "granian": [
        "granian",
        "--interface",
        "asgi",
        "--workers",
        "2",
        "--host",
        "127.0.0.1",
        "--port",
        "{port}",
    ],
    "gunicorn": ["gunicorn", "-k", "asgi", "--no-control-socket", "-b", "127.0.0.1:{port}"],
    "gunicorn with uvicorn": [
        *("gunicorn", "-k", "uvicorn_worker.UvicornWorker", "--no-control-socket", "-b", "127.0.0.1:{port}")
    ],
    "uvicorn --workers 2": ["uvicorn", "--workers", "2", "--port", "{port}"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SETUPS)
def test_a_worker_that_is_asked_drains_its_whole_server(
    folder: Path, release: Callable[[int], object], name: str
) -> None:
    """A parent would start another worker in the place of the one that drains: it is the parent that is told."""
    port = str(free_port())
    server_name, *options = (word.replace("{port}", port) for word in SETUPS[name])
    answers: list[bytes] = []
    with Program(["-m", server_name, f"{APP}:app", *options], cwd=folder) as server:
        url = f"http://127.0.0.1:{port}"
        until_ready(url)

        def ask() -> None:
            with urllib.request.urlopen(f"{url}/slow", timeout=60) as answer:
                answers.append(answer.read())

        client = threading.Thread(target=ask)
        client.start()
        server.wait_for("slow begins", on="out")
        with run(folder, "drain", url) as drain:
            drain.wait_for("draining|clos")  # of two workers the idle one may have been asked
            release(1)
            assert drain.wait() == 0
        assert server.wait() == 0
        client.join(30)
    assert answers == [b'"done"']


def until_ready(url: str) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"{url} is not ready")


def test_what_is_cut_off_is_1_for_both(folder: Path) -> None:
    """A task outlasts the plan: the server and whoever drains it by its process id and URL end with 1 and name it."""
    with serve(folder, "short_app") as server:
        told = served(server)
        post(f"{told['url']}/endless")
        with run(folder, "drain", told["url"], "--pid", str(told["pid"]), "--json") as drain:
            assert drain.wait() == 1
        assert server.wait() == 1
    last = json.loads(drain.out)
    assert (last["state"], last["report"]["clean"]) == ("closed", False) and "endless" in last["text"]


def test_a_process_is_drained_by_its_id(folder: Path) -> None:
    """An app without lastcall can only be ended by signal; `serve` has said what is missing."""
    with serve(folder, "plain") as server:
        told = served(server)
        assert told["lastcall"] is False
        with run(folder, "drain", told["url"]) as drain:
            assert drain.wait() == 2
        with run(folder, "drain", "--pid", str(told["pid"])) as drain:
            assert drain.wait() == 0
        assert server.wait() == 0
    assert drain.out == f"process {told['pid']} has ended\n"


def test_a_second_ctrl_c_forces(folder: Path) -> None:
    """The plan has twenty seconds for a task that will not end; the person has not."""
    with serve(folder, "app", "--kill-after", "26") as server:
        told = served(server)
        post(f"{told['url']}/endless")
        server.signal(signal.SIGINT)
        server.wait_for("Shutting down")
        for _ in range(20):  # within a quarter of a second it is taken for an echo of the first
            server.signal(signal.SIGINT)
            if _ended(server, 0.3) or "forced" in server.err:
                break
        assert server.wait() == 130
    assert "endless" in server.err and "Traceback" not in server.err
    killer = next(choice for choice in told["chosen"] if choice["name"] == "kill_after")
    assert killer["why"] == "too short: the plan needs 27, or must be smaller"


def _ended(program: Program, seconds: float) -> bool:
    try:
        program._process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def test_a_reader_follows_through_a_stop_and_a_crash(folder: Path, release: Callable[[int], object]) -> None:
    """
    1. A job tells a story in parts; one reader wants text, one JSON, both by HTTP.
    2. The server is stopped in part 1 and started again; killed in part 3 and started again.
    Result: each event came once and in order, the text is the whole story, both readers end with 0.
    """
    port = free_port()
    job_id = submit(folder, "tell", parts=5)
    with serve(folder, port=port) as first:
        url = served(first)["url"]
        with (
            run(folder, "streams", "tail", url, job_id) as text,
            run(folder, "streams", "tail", url, job_id, "--json") as lines,
        ):
            text.wait_for("part 0", on="out")
            lines.wait_for("part 0", on="out")
            release(1)
            first.wait_for("begin 1", on="out")
            first.signal(signal.SIGTERM)
            first.wait_for("Shutting down")
            release(1)
            assert first.wait() == 0
            with serve(folder, port=port) as second:
                release(1)
                second.wait_for("begin 3", on="out")
                text.wait_for("part 3", on="out")
                second.signal(signal.SIGKILL)
                second.wait()
            with serve(folder, port=port) as third:
                third.wait_for("begin 3", on="out")
                release(2)
                assert (text.wait(), lines.wait()) == (0, 0)
                third.signal(signal.SIGTERM)
                assert third.wait() == 0
    entries = [
        Entry(**{**one, "data": json.dumps(one["data"])}) for one in map(json.loads, lines.out.splitlines())
    ]
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    view = TextView()
    view.apply(entries)
    whole = "".join(f"part {n}, " for n in range(5))
    assert view.text("story") == whole
    assert text.out == whole.replace("part 3, ", "part 3, \npart 3, ") + "\n"
    assert "taken back" in text.err
    assert info(folder, job_id)[0].status == "completed"


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line about what cannot be used, of a command called in this process; its code is 2."""
    with pytest.raises(SystemExit) as end:
        app(list(arguments), prog_name="lastcall")
    out, err = capsys.readouterr()
    assert end.value.code == 2 and out == ""
    assert err.startswith("lastcall: ") and err.count("\n") == 1, err
    return err


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("app", "must look like module:attribute"),
        ("nowhere:app", "there is no module 'nowhere'"),
        (f"{APP}:nobody", "has no 'nobody'"),
        (f"{APP}:__name__", "is no app, but 'str'"),
        ("app.py:app", "names a file"),
    ],
)
def test_an_app_that_is_none_is_one_line(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    line: str,
) -> None:
    """What was typed cannot be served: no traceback, code 2."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert line in said(capsys, "serve", target)


def test_a_port_in_use_is_one_line(folder: Path) -> None:
    """Before anything has begun."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with run(folder, "serve", f"{APP}:app", "--port", str(taken.getsockname()[1])) as program:
            assert program.wait() == 2
    assert "cannot listen on 127.0.0.1:" in program.err and program.err.count("\n") == 1


def test_an_app_that_does_not_start_is_2(folder: Path) -> None:
    """Uvicorn says why; scripts see it in the code."""
    with run(folder, "serve", f"{APP}:broken", "--port", "0") as program:
        assert program.wait() == 2
    assert "no beer left" in program.err and program.out == ""


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "say which process"),
        (["http://127.0.0.1:1"], "nobody answers at http://127.0.0.1:1"),
        (["127.0.0.1:8000"], "is no URL"),
        (["http://127.0.0.1:99999"], "is no URL"),
        (["--pid", "0"], "0 is no process"),
        (["--pid", str(2**22 + 5)], "there is no process"),
        (["http://127.0.0.1:1", "--header", "secret"], "a header must look like"),
    ],
)
def test_a_drain_that_cannot_be_asked_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    """Nobody there, or what was typed means nothing: code 2."""
    assert line in said(capsys, "drain", *arguments)
