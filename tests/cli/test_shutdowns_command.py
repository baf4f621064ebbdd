"""`lastcall shutdowns`, and what it shows: real processes that are told to stop, or killed, and who comes next."""

import json
import signal
import socket
import sqlite3
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lastcall.cli._app import app as command
from tests.cli.program import Program
from tests.cli.test_command import MODULE

DB = "sqlite:///jobs.db"

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Say]:
    """Calls the command in the folder of the store: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LASTCALL_DB", raising=False)

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            command(["shutdowns", *arguments], prog_name="lastcall")
        assert isinstance(end.value.code, int)
        return (end.value.code, *capsys.readouterr())

    yield call


def told(say: Say, *arguments: str) -> list[dict[str, Any]]:
    code, out, err = say("--db", DB, "--json", *arguments)
    assert (code, err) == (0, "")
    shutdowns: list[dict[str, Any]] = json.loads(out)["shutdowns"]
    return shutdowns


def serve(folder: Path, **env: str) -> Program:
    options = ["serve", "tests.cli.past_app:app", "--port", "0", "--json"]
    return Program([*MODULE, *options], cwd=folder, env=env)


def worker(folder: Path) -> Program:
    return Program([*MODULE, "worker", "tests.cli.past_app:jobs", "--close", "120"], cwd=folder)


def stop(program: Program) -> int:
    program.signal(signal.SIGTERM)
    return program.wait()


@pytest.mark.server
@pytest.mark.slow
def test_the_next_process_shows_who_was_left(tmp_path: Path, say: Say) -> None:
    """
    1. A server is told to stop; a task of it will not end, and its process is gone.
    2. Two workers of the next server show that, on the page, and stop well.
    Result: three reports, of three processes, on the terminal and as JSON.
    """
    with serve(tmp_path, GUEST="1") as first:
        pid = json.loads(first.wait_for(r"\{.*\}\n", on="out")[0])["pid"]
        assert stop(first) == 1
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.set_inheritable(True)
        port, fd = listener.getsockname()[1], listener.fileno()
        server = ["-m", "uvicorn", "tests.cli.past_app:app", "--workers", "2", "--fd", str(fd)]
        with Program(server, cwd=tmp_path, keep=[fd]) as second:
            second.wait_for(r"(startup complete(.|\n)*){2}")
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/lastcall/shutdowns", timeout=60) as answer:
                [past] = json.load(answer)["shutdowns"]
            stop(second)
    [guest] = past["report"]["tasks"]
    assert (past["pid"], guest["name"], guest["outcome"]) == (pid, "the last guest", "refused")
    assert "in stays" in " ".join(guest["stack"]) and not past["report"]["clean"]
    shutdowns = told(say)
    assert [(one["id"], one["report"]["clean"]) for one in shutdowns] == [(3, True), (2, True), (1, False)]
    assert len({one["pid"] for one in shutdowns}) == 3 and shutdowns[2] == past
    assert [one["id"] for one in told(say, "--limit", "1")] == [3]
    code, out, _ = say("--db", DB)
    assert (
        code == 0
        and f"process {pid}\n" in out
        and "'the last guest' (t-1) was cancelled and would not end" in out
    )
    assert out.index("clean") < out.index("NOT clean") and "written before the store closed" in out


@pytest.mark.server
@pytest.mark.slow
def test_a_worker_leaves_one_and_a_killed_one_none(tmp_path: Path, say: Say) -> None:
    """One worker is told to stop, with nothing to do; the next one is killed: of that one nobody can tell."""
    with worker(tmp_path) as program:
        started = program.wait_for(r"worker ([0-9a-f-]{36}) on")
        assert stop(program) == 0
    with worker(tmp_path) as program:
        program.wait_for(r"worker ([0-9a-f-]{36}) on")
        program.signal(signal.SIGKILL)
        program.wait()
    [past] = told(say)
    assert past["worker_ids"] == [started[1]] and (past["report"]["name"], past["report"]["clean"]) == (
        "worker",
        True,
    )
    assert f"worker {started[1]}" in say("--db", DB)[1]


@pytest.mark.server
@pytest.mark.slow
def test_a_store_that_is_locked_at_the_end_spoils_nothing(tmp_path: Path, say: Say) -> None:
    """A backup holds the file just when the server is told to stop: exit code 0 as without it, a line in the log."""
    with serve(tmp_path, PATIENCE="0.3") as program:
        program.wait_for(r"\{.*\}\n", on="out")
        with closing(sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert stop(program) == 0
            other.execute("ROLLBACK")
    assert "the report of the shutdown of 'bar' is not kept in the store" in program.err
    assert "Traceback" not in program.err and told(say) == []


def test_stores_without_reports_and_none_at_all(tmp_path: Path, say: Say) -> None:
    """A new store: it says that there are none. No store, no file, a limit that is none: one line, code 2."""
    assert say("--db", DB)[0] == 2 and not (tmp_path / "jobs.db").exists()
    with pytest.raises(SystemExit):
        command(["db", "migrate", "--db", DB, "--json"], prog_name="lastcall")
    say("--help")
    assert say("--db", DB) == (0, "no reports of shutdowns\n", "")
    assert told(say) == []
    for arguments in (
        [],
        ["--db", DB, "--app", "app:jobs"],
        ["--db", DB, "--limit", "0"],
        ["--db", "redis://x"],
    ):
        code, out, err = say(*arguments)
        assert (code, out) == (2, "") and "Traceback" not in err, arguments
