"""Servers that do not come to their end: the app's resources close and the process ends all the same.

Real servers as processes, real signals, and a client that does not read.
"""

import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.loops("asyncio")]

APP = """
import contextlib, os
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from lastcall import ShutdownPlan, TaskManager
from lastcall.starlette import StreamResponse, install

async def flood(request):
    async def source():
        while True:
            yield "x" * 50_000_000  # more than any socket buffers
    return StreamResponse(source(), format="text")

async def pid(request):
    return PlainTextResponse(str(os.getpid()))

@contextlib.asynccontextmanager
async def lifespan(app):
    print("READY", flush=True)
    yield
    print("CLOSED", flush=True)

app = Starlette(routes=[Route("/flood", flood), Route("/pid", pid)], lifespan=lifespan)
install(app, TaskManager(plan=ShutdownPlan(drain=0.5, cancel=0.5, close=0.5)), stream_grace_seconds=0.1)
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def server(tmp_path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A server as a process of its own group, which is gone at the end of the block."""
    (tmp_path / "stuck_app.py").write_text(APP)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(tmp_path)])}
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert any("READY" in line for line in process.stdout), "the server did not start"
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


def ask(port: int, path: str) -> socket.socket:
    """A connection that has sent a request, tried until the server listens."""
    for _ in range(2000):
        try:
            client = socket.create_connection(("127.0.0.1", port), timeout=10)
        except ConnectionRefusedError:
            continue
        client.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        return client
    raise AssertionError("the server does not listen")


def test_client_that_does_not_read_cannot_keep_the_process(tmp_path: Path) -> None:
    """uvicorn waits for ever for a client with full buffers: the resources close, and the guard ends the process."""
    port = free_port()
    with server(tmp_path, "uvicorn", "stuck_app:app", "--port", str(port)) as process:
        client = ask(port, "/flood")
        while b"xxx" not in client.recv(1000):
            pass  # the head; once the body begins, far more of it waits in the server than it can get rid of
        os.kill(process.pid, signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
        client.close()
    assert process.returncode == 1
    assert output.index("CLOSED") < output.index("told to stop")


def test_worker_signalled_alone_does_not_stay_as_a_zombie(tmp_path: Path) -> None:
    """SIGTERM to a hypercorn worker, of which its master knows nothing: it drains, closes, and dies of the signal."""
    port = free_port()
    with server(tmp_path, "hypercorn", "stuck_app:app", "-b", f"127.0.0.1:{port}") as process:
        client = ask(port, "/pid")
        answer = http.client.HTTPResponse(client)
        answer.begin()
        worker = int(answer.read())
        client.close()
        assert worker != process.pid
        os.kill(worker, signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
    assert output.index("CLOSED") < output.index("reached this worker alone")
