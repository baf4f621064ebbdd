"""Readers with the protocol's own client, while their server is replaced: by an order, and by `kill -9`."""

import json
import subprocess
import time
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

from tests.servers.processes import free_port
from tests.streams.durable.runner import NODE, Server, packages, why_not

NUMBERS = 120


class Writer:
    """A producer that numbers its writes, and repeats each until it is answered."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.number = 0

    def write(self, count: int) -> None:
        for _ in range(count):
            self._send("POST", json.dumps(self.number), {"Producer-Seq": str(self.number)})
            self.number += 1

    def create(self) -> None:
        self._send("PUT", "", {})

    def close(self) -> None:
        self._send("POST", "", {"Producer-Seq": str(self.number), "Stream-Closed": "true"})

    def _send(self, method: str, body: str, headers: dict[str, str]) -> None:
        if method == "POST":
            headers = {"Producer-Id": "writer", "Producer-Epoch": "0", **headers}
        request = Request(
            self.url,
            data=body.encode() or None,
            method=method,
            headers={"Content-Type": "application/json", **headers},
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                with urlopen(request, timeout=10):
                    return
            except HTTPError as error:
                assert error.code == 503, error.read()
            except (URLError, ConnectionError, TimeoutError):
                pass
            assert time.monotonic() < deadline, "nobody answers"
            time.sleep(0.05)


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.timeout(180)
def test_readers_see_all_of_it_through_restarts_and_kills(tmp_path: Path) -> None:
    """Two readers, one with each live mode, and a writer; their server is stopped in order, killed, and killed again,
    and started anew each time: each reader has every value once, in order, to the end."""
    if (missing := why_not()) is not None:
        pytest.skip(missing)
    folder = packages()
    script = folder / "reader.mjs"
    script.write_bytes(NODE.joinpath("reader.mjs").read_bytes())
    port = free_port()
    writer = Writer(f"http://127.0.0.1:{port}/lastcall/streams/s")
    readers: list[subprocess.Popen[str]] = []
    server = Server(tmp_path / "streams.db", port)
    try:
        writer.create()
        readers = [
            subprocess.Popen(
                ["node", str(script), writer.url, live],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for live in ("sse", "long-poll")
        ]
        for end in (server.stop, server.kill, server.kill):
            writer.write(NUMBERS // 4)
            end()
            server.start()
        writer.write(NUMBERS // 4)
        writer.close()
        for reader in readers:
            out, err = reader.communicate(timeout=60)
            print(err)  # where a connection broke and the client went on
            assert out.splitlines() == [*map(str, range(NUMBERS)), "end"], err[-2000:]
    finally:
        for reader in readers:
            reader.kill()
            reader.communicate()
        server.stop()
