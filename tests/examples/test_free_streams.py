"""free_streams.py and durable_streams.py do what they say, run as a person runs them."""

import http.client
from pathlib import Path

import pytest

from tests.cli.program import ROOT, WAIT_SECONDS, Program
from tests.examples.test_examples import serving

pytestmark = pytest.mark.server


def test_the_conversation_is_there_again(tmp_path: Path) -> None:
    """The conversation in order, the branch with its own end, the list of both; the second time from the file."""
    for _ in range(2):
        with Program([str(ROOT / "examples" / "free_streams.py")], cwd=tmp_path) as program:
            assert program.wait() == 0
        shown = [line.partition(": ") for line in program.out.splitlines()]
        values = ['{"user":"Hello"}', '{"agent":"Hi"}', '{"user":"And now?"}', '{"user":"Something else"}']
        whole = [(f"chat/42 {seq}", value) for seq, value in enumerate(values[:3], 1)]
        branch = [(f"chat/42/again {seq}", value) for seq, value in enumerate([*values[:2], values[3]], 1)]
        listed = [("chat/42", "3 entries, closed"), ("chat/42/again", "3 entries, closed")]
        assert [(where, value) for where, _, value in shown] == whole + branch + listed


def test_a_stream_over_http() -> None:
    """durable_streams.py: a stream is created, written to and read, as its docstring says."""
    with serving("durable_streams") as (_, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_SECONDS)
        try:
            for method, body, status in (("PUT", "", 201), ("POST", "a note ", 204), ("GET", "", 200)):
                headers = {"Content-Type": "text/plain", "Host": "localhost"}
                connection.request(method, "/lastcall/streams/notes", body or None, headers)
                response = connection.getresponse()
                told = response.read()
                assert response.status == status
            assert told == b"a note "
        finally:
            connection.close()
