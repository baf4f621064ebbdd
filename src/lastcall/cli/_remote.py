"""Remote: the HTTP face of a running process, as a command sees it.

Who calls it: `streams tail`, `drain`, `top`. Blocking, with the standard library's client: a command does one thing
after another, and Ctrl-C ends a blocking read at once. What can go wrong: nobody answers (`Away`, perhaps later), or
the process answers that it will not (`Refused`).
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlencode, urlsplit

from lastcall.cli._say import Unusable, one_line, without_password

DEFAULT_PREFIX = "/lastcall"
_SECONDS = 10.0
# A stream that has been silent for three of its keep-alives is dead.
_SILENCE_SECONDS = 50.0
_MAX_ANSWER_BYTES = 64 << 20


class Away(Exception):
    """Nobody answers there now: refused, reset, timed out, or shutting down."""

    def __init__(self, message: str, retry_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class Refused(Exception):
    """The process has answered, and what it said is not what was asked for."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ServerEvent(NamedTuple):
    """One server-sent event. `retry_seconds`: when to come back, if it says so."""

    type: str
    data: str
    retry_seconds: float | None


def is_url(text: str) -> bool:
    """Whether this is the address of a running process, and not of a database."""
    return text.lower().startswith(("http://", "https://"))


class Remote:
    """A running process at `http://host:port`, or with the prefix of its face: `http://host:port/lastcall`.

    `headers`: what the app's own `allow=` asks for, as `Name: value`. Raises `Unusable` for what is no such URL.
    """

    def __init__(self, url: str, headers: Sequence[str] = ()) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise Unusable(f"{without_password(url)!r} is no URL: {error}") from None
        if not is_url(url) or not parts.hostname:
            shown = without_password(url)
            raise Unusable(f"{shown!r} is no URL of a running process, such as http://127.0.0.1:8000")
        self._is_tls = parts.scheme.lower() == "https"
        self._host, self._port = parts.hostname, port or (443 if self._is_tls else 80)
        self.prefix = parts.path.rstrip("/") or DEFAULT_PREFIX
        self._headers = _authorization(parts.username, parts.password)
        self._headers |= dict(_header(text) for text in headers)
        shown = f"[{self._host}]" if ":" in self._host else self._host
        self.shown = f"{parts.scheme.lower()}://{shown}:{self._port}"

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        """A page as JSON. Raises `Away`, `Refused`."""
        with self.open("GET", path, query) as answer:
            return answer.json()

    def post(self, path: str, body: object = None) -> Any:
        """What a verb answers, as JSON. Raises `Away`, `Refused`."""
        with self.open("POST", path, body=body) as answer:
            return answer.json()

    def open(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        *,
        body: object = None,
        accept: str = "application/json",
    ) -> RemoteAnswer:
        """An answer to be read while it comes. Raises `Away`, `Refused` for any status that is an error."""
        target = quote(f"{self.prefix}{path}", safe="/%:@!$&'()*+,;=-._~")
        if query:
            target += "?" + urlencode(query, doseq=True)
        headers = {"Accept": accept, **self._headers}
        payload = None
        if body is not None:
            payload = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        elif method == "POST":
            headers["Content-Length"] = "0"
        connection = self._connect()
        try:
            connection.request(method, target, payload, headers)
            response = connection.getresponse()
            if connection.sock is not None:
                connection.sock.settimeout(_SILENCE_SECONDS)
            answer = RemoteAnswer(connection, response, self.shown)
            answer.check(target)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._away(error) from None
        except BaseException:
            connection.close()
            raise
        return answer

    def _connect(self) -> http.client.HTTPConnection:
        if self._is_tls:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self._host, self._port, timeout=_SECONDS, context=context)
        return http.client.HTTPConnection(self._host, self._port, timeout=_SECONDS)

    def _away(self, error: Exception) -> Away:
        return Away(f"nobody answers at {self.shown}: {_why(error)}")


class RemoteAnswer:
    """An answer whose head has come. A block; leaving it closes the connection."""

    def __init__(
        self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse, shown: str
    ) -> None:
        self._connection = connection
        self._response = response
        self._shown = shown
        self.status = response.status

    def __enter__(self) -> RemoteAnswer:
        return self

    def __exit__(
        self, et: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Also from another thread, whose reading of it then ends."""
        sock = self._connection.sock
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self._connection.close()
        self._response.close()

    def header(self, name: str) -> str | None:
        return self._response.getheader(name)

    def check(self, target: str) -> None:
        """Raises `Refused`, and `Away` for 503, which is not for ever."""
        if self.status < 300:
            return
        told = _detail(self._response.read(1 << 16)) or self._response.reason
        if self.status == 503:
            raise Away(f"{self._shown} answers 503: {told}", _number(self.header("retry-after")))
        if self.status == 404 and not told:
            told = f"there is no {target}"
        raise Refused(self.status, f"{self._shown} answers {self.status}: {told}")

    def json(self) -> Any:
        try:
            return json.loads(self._read())
        except ValueError:
            raise Refused(
                self.status, f"{self._shown} does not answer as lastcall does; is the prefix right?"
            ) from None

    def _read(self) -> bytes:
        try:
            return self._response.read(_MAX_ANSWER_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise Away(f"{self._shown} was lost: {_why(error)}") from None

    def lines(self) -> Iterator[str]:
        """Its lines as they come. Raises `Away` when the connection is lost; ends when the answer does."""
        try:
            while line := self._response.readline():
                yield line.decode("utf-8", "replace").rstrip("\r\n")
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            # The last two: closed by another thread in the middle of a read.
            raise Away(f"{self._shown} was lost: {_why(error)}") from None

    def events(self) -> Iterator[ServerEvent]:
        """Its server-sent events as they come."""
        return read_events(self.lines())


def read_events(lines: Iterable[str]) -> Iterator[ServerEvent]:
    """Server-sent events from lines. A `retry:` without an event is an event without a type."""
    kind, data, retry = "", list[str](), None
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                kind = value
            elif name == "data":
                data.append(value)
            elif name == "retry" and value.isdigit():
                retry = int(value) / 1000
            continue
        if data or retry is not None:
            yield ServerEvent(kind, "\n".join(data), retry)
        kind, data, retry = "", [], None
    if retry is not None:
        yield ServerEvent("", "", retry)


def _authorization(user: str | None, password: str | None) -> dict[str, str]:
    """What a URL like `http://ann:secret@host` says."""
    if user is None:
        return {}
    told = f"{unquote(user)}:{unquote(password or '')}".encode()
    return {"Authorization": f"Basic {base64.b64encode(told).decode()}"}


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    name, value = name.strip(), value.strip()
    is_name = bool(name) and name.isascii() and all(char.isalnum() or char in "-_" for char in name)
    if not colon or not is_name or not value.isprintable() or not value.isascii():
        # Not the value: it may be a secret.
        raise Unusable(f"a header must look like 'Name: value', not {name!r}")
    return name, value


def _detail(body: bytes) -> str:
    """What an error page says, if it is one of ours, or of FastAPI's."""
    try:
        told = json.loads(body)
    except ValueError:
        return ""
    if not isinstance(told, dict):
        return ""
    return one_line(str(told.get("detail") or told.get("title") or ""))


def _number(text: str | None) -> float | None:
    return float(text) if text and text.isdigit() and len(text) < 7 else None


def _why(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return one_line(told) or type(error).__name__
