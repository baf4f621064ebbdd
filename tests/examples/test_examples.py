"""The examples do what they say: each is run as a person runs it, and stopped in the middle."""

import http.client
import json
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cli.program import ROOT, WAIT_SECONDS, Program

pytestmark = pytest.mark.server

EXAMPLES = ROOT / "examples"
STOPS = [signal.SIGINT, signal.SIGTERM]


@contextmanager
def serving(example: str) -> Iterator[tuple[Program, int]]:
    """Run an example under uvicorn, on a socket that is open before the server is."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        listener.set_inheritable(True)
        command = ["-m", "uvicorn", f"{example}:app", "--fd", str(listener.fileno())]
        with Program(command, cwd=EXAMPLES, keep=[listener.fileno()]) as program:
            program.wait_for("Application startup complete")
            yield program, port


@contextmanager
def requesting(port: int, method: str, path: str) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_SECONDS)
    try:
        connection.request(method, path)
        yield connection.getresponse()
    finally:
        connection.close()


@pytest.mark.parametrize("stop", STOPS)
def test_letters_on_their_way_are_delivered(stop: signal.Signals) -> None:
    """quickstart_tasks.py is stopped while letters are on their way: each of them arrives."""
    with Program([str(EXAMPLES / "quickstart_tasks.py")]) as program:
        program.wait_for("letter 3: on its way", on="out")
        program.signal(stop)
        program.wait_for("the postbox is closed", on="out")
        program.wait()
    taken = set(re.findall(r"letter (\d+): on its way", program.out))
    delivered = set(re.findall(r"letter (\d+): delivered", program.out))
    assert taken == delivered
    assert re.search(r"shutdown of .*: clean", program.err)
    assert "Traceback" not in program.err


@pytest.mark.parametrize("stop", STOPS)
def test_the_mail_is_sent_after_the_signal(stop: signal.Signals) -> None:
    """quickstart_fastapi.py is stopped while a BackgroundTask writes a mail: the mail is sent."""
    with serving("quickstart_fastapi") as (program, port):
        with requesting(port, "POST", "/signup/ada") as response:
            assert json.load(response) == {"welcome": "ada"}
        program.wait_for("writing to ada", on="out")
        assert "mail to ada sent" not in program.out
        program.signal(stop)
        program.wait()
    assert "mail to ada sent" in program.out


@pytest.mark.parametrize("stop", STOPS)
def test_the_stream_says_good_bye(stop: signal.Signals) -> None:
    """streaming.py is stopped while a client reads: its last words, the reason, and a proper end arrive."""
    with serving("streaming") as (program, port), requesting(port, "GET", "/answer") as response:
        assert response.readline().startswith(b"data: ")
        program.signal(stop)
        rest = response.read().decode()  # raises if the response is cut off
        program.wait()
    data = [
        json.loads(line.removeprefix("data: ")) for line in rest.splitlines() if line.startswith("data: ")
    ]
    assert data[-2:] == [
        {"text": "(cut short: the service is restarting)"},
        {"type": "end", "reason": "shutdown"},
    ]
    assert program.out.count("the model's connection is closed") == 1


def test_a_reader_who_left_closes_the_model() -> None:
    """streaming.py: the client hangs up in the middle; the connection to the model is closed at once."""
    with serving("streaming") as (program, port):
        with requesting(port, "GET", "/answer") as response:
            assert response.readline().startswith(b"data: ")
        program.wait_for("the model's connection is closed", on="out")
