"""`lastcall streams`: list and tail, from a database and from a process, jobs and free-standing streams, and what they
refuse."""

import asyncio
import contextlib
import functools
import http.server
import json
import signal
import threading
import urllib.request
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from lastcall import TaskManager
from lastcall.cli._app import app as command
from lastcall.cli._remote import ServerEvent, read_events
from lastcall.jobs import Context, Jobs
from tests.cli.program import Program
from tests.cli.test_command import MODULE
from tests.cli.test_serve_command import serve, served

NOBODY = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def streams(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Say:
    """Calls `streams` in a folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            command(["streams", *arguments], prog_name="lastcall")
        assert isinstance(end.value.code, int)
        return (end.value.code, *capsys.readouterr())

    return call


@pytest.fixture
def say(streams: Say) -> Say:
    """Calls `streams tail` in the same way."""
    return functools.partial(streams, "tail")


def on_store(folder: Path, work: Callable[[Jobs], Coroutine[Any, Any, Any]]) -> Any:
    async def main() -> Any:
        async with Jobs(f"sqlite:///{folder}/jobs.db") as jobs:
            return await work(jobs)

    return asyncio.run(main())


async def tell(jobs: Jobs) -> str:
    """A job that has told two stories, and ended."""

    @jobs.task(name="tell")
    async def tell(ctx: Context) -> None:
        await ctx.progress(1, 2, "half\x1b[2J")
        async with ctx.stream("one") as one:
            await one.write("a b\n")
            await one.write("c")
        async with ctx.stream("two") as two:
            await two.write("d")

    job = await tell.submit()
    async with TaskManager() as manager, jobs.worker(manager=manager):
        await job.wait(timeout=20)
    return job.id


def test_a_job_in_a_database(say: Say, tmp_path: Path) -> None:
    """By the end of its id; text alone on standard output; as JSON each entry; from a cursor only what is behind it."""
    job_id = on_store(tmp_path, tell)
    code, out, err = say("sqlite:///jobs.db", job_id[-8:])
    assert (code, out) == (0, "a b\nc\nd\n")
    assert "progress: 1 of 2 half" in err and "\x1b" not in err and "[two]" in err
    assert say("sqlite:///jobs.db", job_id, "--quiet") == (0, out, "")
    _, out, _ = say("sqlite:///jobs.db", job_id, "--json")
    lines = out.splitlines()
    assert [json.loads(line)["seq"] for line in lines] == list(range(1, len(lines) + 1))
    _, behind, _ = say("sqlite:///jobs.db", job_id, "--json", "--after", "2")
    assert behind.splitlines() == lines[2:]


def test_a_free_standing_stream_in_a_database(say: Say, tmp_path: Path) -> None:
    """Values are lines, texts are typed as they come; an id that looks like a stream's name is the stream's."""

    async def write(jobs: Jobs) -> None:
        values = await jobs.streams.create("cafe")
        await values.append_json({"a": "\u4efb\u52a1"}, [1])
        await values.close()
        words = await jobs.streams.create("chat/42", content_type="text/plain")
        for word in ("one ", "two"):
            await words.append(word)
        await words.close()

    on_store(tmp_path, write)
    assert say("sqlite:///jobs.db", "cafe") == (0, '{"a": "\u4efb\u52a1"}\n[1]\n', "")
    assert say("sqlite:///jobs.db", "chat/42") == (0, "one two\n", "")
    assert say("sqlite:///jobs.db", "cafe", "--after", "1")[1] == "[1]\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["sqlite:///jobs.db", NOBODY], "there is no job"),
        (["sqlite:///jobs.db", "nothing"], "there is no stream 'nothing'"),
        (["sqlite:///jobs.db", "a\x1b[2Jb"], "control characters"),
        (["sqlite:///jobs.db", "cafe", "--after", "-1"], "--after is the number of the last entry"),
        (["sqlite:///jobs.db", "cafe", "--after", "9"], "ahead of the end"),
        (["sqlite:///jobs.db", "cafe", "--after", "9" * 30], "--after is the number"),
        (["sqlite:///none.db", "cafe"], "there is no database"),
        (["mysql://x", "cafe"], "no engine knows the URL"),
        (["http://", "cafe"], "is no URL"),
        (["http://127.0.0.1:1", "cafe", "--after", "7"], "goes on from an offset"),
        (["http://127.0.0.1:1", NOBODY, "--after", "x"], "--after is the number"),
        (["http://127.0.0.1:1", NOBODY, "--header", "Cookie: a\r\nX: b"], "a header must look like"),
    ],
)
def test_what_cannot_be_read_is_one_line(say: Say, tmp_path: Path, arguments: list[str], line: str) -> None:
    """Unknown ids, forged cursors, places that are none: code 2, and nothing on standard output."""

    async def write(jobs: Jobs) -> None:
        await (await jobs.streams.create("cafe")).append_json(1)

    on_store(tmp_path, write)
    code, out, err = say(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1) and line in err and "\x1b" not in err


def test_a_process_that_is_away_for_too_long_is_1(say: Say) -> None:
    """Where to go on is said, so that nothing is lost."""
    code, out, err = say("http://127.0.0.1:1", NOBODY, "--after", "5", "--patience", "0")
    assert (code, out) == (1, "") and f"tail http://127.0.0.1:1 {NOBODY} --after 5" in err


def test_passwords_are_not_printed(say: Say) -> None:
    """Neither in what to type next, nor in what is wrong with a URL."""
    for place in ("http://ann:p@ssword@127.0.0.1:1", "http://ann:secret@:1", "http://ann:secret@h:x"):
        _, out, err = say(place, NOBODY, "--patience", "0")
        assert "ssword" not in err and "secret" not in err and out == ""


def test_ctrl_c_prints_the_cursor(tmp_path: Path) -> None:
    """A stream that is open is followed until somebody has enough; the next run goes on where this one stood."""

    async def write(jobs: Jobs) -> None:
        await (await jobs.streams.create("open")).append_json("first", "second")

    on_store(tmp_path, write)
    with Program([*MODULE, "streams", "tail", "sqlite:///jobs.db", "open"], cwd=tmp_path) as tail:
        tail.wait_for("second", on="out")
        tail.signal(signal.SIGINT)
        assert tail.wait() == 130
    assert tail.out == '"first"\n"second"\n' and "Traceback" not in tail.err
    assert tail.err == (
        "lastcall: read up to 2; go on with: lastcall streams tail sqlite:///jobs.db open --after 2\n"
    )


# --- list ---


async def write_some(jobs: Jobs) -> None:
    """Five streams: one is closed, one a fork, one of texts, one hostile."""
    for number in range(3):
        await (await jobs.streams.create(f"chat/{number}")).append_json({"n": number}, [1])
    await jobs.streams.open("chat/1").close()
    await jobs.streams.open("chat/2").fork("chat/2/again", after=1)
    await jobs.streams.create("\u202e[red]\u4efb", content_type="text/plain")


def test_the_list_of_a_database(streams: Say, tmp_path: Path) -> None:
    """A line for each stream, as text that drives no terminal; of a prefix; page by page, each name once."""
    on_store(tmp_path, write_some)
    code, out, err = streams("list", "sqlite:///jobs.db")
    lines = [line.split() for line in out.splitlines()]
    assert (code, err, lines[0]) == (0, "", "ENTRIES BYTES WRITTEN STATE TYPE STREAM FORK OF".split())
    assert [" ".join(line[4:]) for line in lines[1:]] == [
        "open application/json chat/0",
        "closed application/json chat/1",
        "open application/json chat/2",
        "open application/json chat/2/again chat/2",
        "open text/plain \N{REPLACEMENT CHARACTER}[red]\u4efb",
    ]
    assert {line[3] for line in lines[1:]} == {"ago"}
    assert [line[0] for line in lines[1:]] == ["2", "2", "2", "1", "0"] and "\u202e" not in out
    assert streams("list", "sqlite:///jobs.db", "--prefix", "none") == (0, "no streams\n", "")

    seen: list[str] = []
    following: str | None = ""
    while following is not None:
        page = ["--prefix", "chat/", "--limit", "2", "--after", following]
        code, out, err = streams("list", "sqlite:///jobs.db", "--json", *page)
        told = json.loads(out)
        assert (code, err, told["shown"]) == (0, "", 2)
        seen += [item["name"] for item in told["items"]]
        following = told["next"]
    assert seen == ["chat/0", "chat/1", "chat/2", "chat/2/again"]
    code, out, err = streams("list", "sqlite:///jobs.db", "--limit", "1")
    assert (code, err) == (0, "lastcall: there are more; the next page: --after chat/0\n")


NOT_LISTED = [
    (["sqlite:///none.db"], "there is no database"),
    (["mysql://x"], "no engine knows the URL"),
    (["http://"], "is no URL"),
    (["http://127.0.0.1:1"], "nobody answers at http://127.0.0.1:1"),
    (["sqlite:///jobs.db", "--prefix", "a\x1b[2Jb"], "control characters"),
    (["sqlite:///jobs.db", "--after", "\n"], "control characters"),
    (["sqlite:///jobs.db", "--prefix", "\udcff"], "surrogate"),
    (["http://127.0.0.1:1", "--after", "\udcff"], "no text in this system's encoding"),
    (["http://127.0.0.1:1", "--prefix", "\udcff"], "no text in this system's encoding"),
]


def test_what_cannot_be_listed_is_one_line(streams: Say, tmp_path: Path) -> None:
    """Places that are none, names that nobody has: code 2, and nothing that a script could take for an empty list."""
    on_store(tmp_path, write_some)
    for arguments, line in NOT_LISTED:
        for flags in ([], ["--json"]):
            code, out, err = streams("list", *arguments, *flags)
            assert (code, out, err.count("\n")) == (2, "", 1), arguments
            assert line in err and "\x1b" not in err


STREAM = {"name": "a", "content_type": "b", "closed": False, "entries": 1, "bytes": 1, "updated_at": 1.0}
STREAM |= {"forked_from": None}


@pytest.mark.parametrize(
    "answer",
    [
        {"items": [{**STREAM, "updated_at": "yesterday"}], "next": None},
        {"items": [{"name": "a"}], "next": None},
        {"items": 5, "next": None},
        {"items": []},
        [],
        None,
    ],
)
def test_a_process_that_is_not_ours(streams: Say, answer: Any) -> None:
    """Whatever somebody else's server says, there is one line and code 2; and a `next` for ever is no hang."""
    with answering(answer) as url:
        code, out, err = streams("list", url)
        assert (code, out, err.count("\n")) == (2, "", 1) and "does not answer as lastcall does" in err
    with answering({"items": [], "next": "again"}) as url:
        assert streams("list", url) == (0, "no streams\n", "")
    with answering({"items": [STREAM], "next": "again"}) as url:
        assert json.loads(streams("list", url, "--limit", "3", "--json")[1])["shown"] == 3


@contextlib.contextmanager
def answering(content: Any) -> Iterator[str]:
    """A server that says the same to everybody."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


# --- a process ---


def call(url: str, method: str, body: str = "", **headers: str) -> None:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, body.encode(), names, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status < 300


@pytest.mark.server
def test_free_standing_streams_of_a_process(say: Say, streams: Say, tmp_path: Path) -> None:
    """By HTTP, listed, of JSON and of text that looks like JSON; Ctrl-C prints an offset, and from there it goes on."""
    with serve(tmp_path) as server:
        url = served(server)["url"]
        base = f"{url}/lastcall/streams"
        call(f"{base}/values", "PUT", content_type="application/json")
        call(f"{base}/values", "POST", '[{"n":1},[2]]', content_type="application/json")
        call(f"{base}/words%20of/x", "PUT", content_type="text/plain")
        call(f"{base}/words%20of/x", "POST", "[1]", content_type="text/plain", stream_closed="true")
        assert say(url, "words of/x") == (0, "[1]\n", "")
        told = json.loads(streams("list", url, "--json", "--limit", "1", "--after", "a")[1])
        assert (told["shown"], told["next"], told["items"][0]["entries"]) == (1, "values", 2)
        assert told["items"][0]["url"] == "/lastcall/streams/values"
        code, out, err = streams("list", url, "--prefix", "words", "--after", "values")
        assert (code, err) == (0, "") and out.splitlines()[1].endswith("closed text/plain words of/x")
        code, out, err = streams("list", url, "--prefix", "\x1b")
        assert (code, out) == (2, "") and "answers 422: a stream's name has no control characters" in err
        assert streams("list", f"{url}/elsewhere")[0] == 2
        with Program([*MODULE, "streams", "tail", url, "values", "--json"], cwd=tmp_path) as tail:
            tail.wait_for(r"\[2\]", on="out")
            tail.signal(signal.SIGINT)
            assert tail.wait() == 130
        entries = [json.loads(line) for line in tail.out.splitlines()]
        assert [(entry["seq"], entry["data"]) for entry in entries] == [(1, {"n": 1}), (2, [2])]
        offset = tail.err.split("--after ")[1].strip()
        call(f"{base}/values", "POST", '["last"]', content_type="application/json", stream_closed="true")
        assert say(url, "values", "--after", offset) == (0, '"last"\n', "")
        assert say(url, "values", "--after", offset.replace("0000000000000002", "0000000000000001"))[0] == 2
        assert say(url, "nobody")[0] == 2 and say(url, NOBODY)[0] == 2
        assert say(f"{url}/elsewhere", NOBODY)[0] == 2
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_events_are_read_by_the_standard() -> None:
    """Comments, several lines of data, fields that nobody knows, an event that is not complete."""
    text = ": hello\n\nretry: 250\nid: 3\n\nevent: a\ndata: x\ndata:y\nodd: 1\n\ndata: z\n\nretry: soon\nevent: cut"
    assert list(read_events(text.split("\n"))) == [
        ServerEvent("", "", 0.25),
        ServerEvent("a", "x\ny", None),
        ServerEvent("", "z", None),
    ]
