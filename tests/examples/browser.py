"""A headless Chromium, driven over its own protocol: opens a page and evaluates expressions in it."""

import contextlib
import http.client
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_SECONDS = 30.0
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --no-proxy-server --font-render-hinting=none "
    "--remote-debugging-port=0"
)


def find_browser() -> str | None:
    """The first Chromium on the path."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


class Page:
    """One page. `value` gives what a JavaScript expression comes to, as JSON has it.

    `events`: what the browser told by itself, as far as it has been read; `Runtime.enable` and others make it tell.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._count = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        self._connection.send(json.dumps({"id": self._count, "method": method, "params": params}))
        while True:
            told = json.loads(self._connection.recv(timeout=_SECONDS))
            if told.get("id") == self._count:
                assert "error" not in told, told
                return dict(told["result"])
            if "method" in told:
                self.events.append(told)

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def value(self, expression: str) -> Any:
        told = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def until(self, expression: str, seconds: float = _SECONDS) -> None:
        """Ask until the expression is true."""
        deadline = time.monotonic() + seconds
        while not self.value(expression):
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{expression} does not become true; the page: {self.value(_TEXT)!r:.1000}"
                )
            time.sleep(0.02)


_TEXT = "document.body && document.body.innerText"


@contextmanager
def browser(path: str, folder: Path, **env: str) -> Iterator[Page]:
    """The browser at `path`, with a profile of its own in `folder`, and its one page."""
    profile = folder / "profile"
    log = (folder / "browser.log").open("wb")
    with (
        log,
        subprocess.Popen(
            [path, *_FLAGS.split(), f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"HOME": str(folder), "PATH": "/usr/bin:/bin", "XDG_CONFIG_HOME": str(folder), **env},
        ) as process,
    ):
        try:
            with connect(_page_address(process, profile), max_size=None, compression=None) as connection:
                yield Page(connection)
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()


def _page_address(process: subprocess.Popen[bytes], profile: Path) -> str:
    told = profile / "DevToolsActivePort"
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if told.exists() and (lines := told.read_text().splitlines()):
            asking = http.client.HTTPConnection("127.0.0.1", int(lines[0]), timeout=_SECONDS)
            try:
                asking.request("GET", "/json/list")
                targets = json.load(asking.getresponse())
            finally:
                asking.close()
            pages = [target for target in targets if target["type"] == "page"]
            if pages:
                return str(pages[0]["webSocketDebuggerUrl"])
        time.sleep(0.02)
    raise TimeoutError("the browser does not start; see browser.log in the test's folder")
