"""A server's command line as facts: which server it is, and what it will do at a shutdown. Pure.

Who calls it: `doctor`, for `--server` and for the commands in a manifest. What is not said has the server's default,
as measured; what cannot be read (a number that is none, a configuration file) is left unknown.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from os.path import basename
from typing import NamedTuple

from lastcall import ShutdownPlan
from lastcall.exceptions import InvalidPlan

_SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh"})


class Server(NamedTuple):
    """`where`: who said so. `call_limit_seconds`: it cancels calls after that; `kill_after_seconds`: it kills workers
    after that; `lifespan_limit_seconds`: it cancels the lifespan. None: no such limit. `plan`: the server's own."""

    where: str
    name: str
    workers: int = 1
    worker_class: str = ""
    call_limit_seconds: float | None = None
    kill_after_seconds: float | None = None
    lifespan_limit_seconds: float | None = None
    lifespan: str = "auto"
    reload: bool = False
    config_file: str | None = None
    behind_shell: bool = False
    plan: ShutdownPlan | None = None

    @property
    def can_delay(self) -> bool:
        """Whether it goes on serving through a notice."""
        return self.name in ("uvicorn", "lastcall serve") or self.is_gunicorn_with_uvicorn

    @property
    def is_gunicorn_with_uvicorn(self) -> bool:
        return self.name == "gunicorn" and "uvicorn" in self.worker_class.lower()

    @property
    def serves(self) -> bool:
        """Whether it answers requests."""
        return self.name != "lastcall worker"


class _Words:
    """Options of a command line: `--name value`, `--name=value`, `-n value`, `-nvalue`."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words

    def last(self, *names: str) -> str | None:
        found = None
        for index, word in enumerate(self._words):
            for name in names:
                if word == name and index + 1 < len(self._words):
                    found = self._words[index + 1]
                elif name.startswith("--") and word.startswith(f"{name}="):
                    found = word.partition("=")[2]
                elif not name.startswith("--") and word.startswith(name) and len(word) > len(name):
                    found = word[len(name) :].removeprefix("=")
        return found

    def has(self, name: str) -> bool:
        return name in self._words

    def number(self, *names: str) -> float | None:
        return _number(self.last(*names))


def parse_server(
    words: Sequence[str], where: str, environment: Mapping[str, str] | None = None
) -> Server | None:
    """The server that a command starts; None: none that is known here."""
    environment = environment or {}
    words, shell = _through_shells(list(words))
    for index, word in enumerate(words):
        name = basename(word)
        rest = _Words(words[index + 1 :])
        if name in _READERS:
            return _READERS[name](rest, where, environment)._replace(behind_shell=shell)
        if name == "lastcall" and index + 1 < len(words):
            if words[index + 1] == "serve":
                return Server(where, "lastcall serve", lifespan="on", behind_shell=shell)
            if words[index + 1] == "worker":
                return Server(where, "lastcall worker", plan=_worker_plan(rest), behind_shell=shell)
    return None


def split_command(text: str) -> list[str]:
    """Raises ValueError for a quote that is not closed."""
    return shlex.split(text)


def _through_shells(words: list[str]) -> tuple[list[str], bool]:
    """What a shell is told to run, and whether the shell stays in front of it."""
    if len(words) < 2 or basename(words[0]) not in _SHELLS:
        return words, False
    for index, word in enumerate(words[1:], 1):
        if word.startswith("-") and not word.startswith("--") and "c" in word and index + 1 < len(words):
            try:
                inner = shlex.split(words[index + 1].replace(";", " ; "))
            except ValueError:
                return [], True
            return inner, "exec" not in inner
    return words, True


def _uvicorn(words: _Words, where: str, environment: Mapping[str, str]) -> Server:
    workers = (
        words.number("--workers")
        or _number(environment.get("UVICORN_WORKERS"))
        or _number(environment.get("WEB_CONCURRENCY"))
    )
    limit = words.number("--timeout-graceful-shutdown") or _number(
        environment.get("UVICORN_TIMEOUT_GRACEFUL_SHUTDOWN")
    )
    return Server(
        where,
        "uvicorn",
        int(workers or 1),
        call_limit_seconds=limit,
        lifespan=words.last("--lifespan") or environment.get("UVICORN_LIFESPAN") or "auto",
        reload=words.has("--reload"),
    )


def _hypercorn(words: _Words, where: str, environment: Mapping[str, str]) -> Server:
    workers = words.number("-w", "--workers")
    limit = words.number("--graceful-timeout")
    return Server(
        where,
        "hypercorn",
        1 if workers is None else int(workers),
        call_limit_seconds=3.0 if limit is None else limit,
        lifespan_limit_seconds=60.0,
        reload=words.has("--reload"),
        config_file=words.last("-c", "--config"),
    )


def _granian(words: _Words, where: str, environment: Mapping[str, str]) -> Server:
    limit = words.number("--workers-kill-timeout") or _number(environment.get("GRANIAN_WORKERS_KILL_TIMEOUT"))
    workers = words.number("--workers") or _number(environment.get("GRANIAN_WORKERS"))
    return Server(
        where,
        "granian",
        int(workers or 1),
        kill_after_seconds=limit,
        reload=words.has("--reload"),
    )


def _gunicorn(words: _Words, where: str, environment: Mapping[str, str]) -> Server:
    try:
        # The command line comes later, and so counts.
        more = shlex.split(environment.get("GUNICORN_CMD_ARGS", ""))
    except ValueError:
        more = []
    words = _Words([*more, *words._words])
    limit = words.number("--graceful-timeout")
    workers = words.number("-w", "--workers") or _number(environment.get("WEB_CONCURRENCY"))
    return Server(
        where,
        "gunicorn",
        int(workers or 1),
        worker_class=words.last("-k", "--worker-class") or "",
        kill_after_seconds=30.0 if limit is None else limit,
        reload=words.has("--reload"),
        config_file=words.last("-c", "--config"),
    )


_READERS = {"uvicorn": _uvicorn, "hypercorn": _hypercorn, "granian": _granian, "gunicorn": _gunicorn}


def _worker_plan(words: _Words) -> ShutdownPlan | None:
    given = {name: words.number(f"--{name}") for name in ("notice", "drain", "cancel", "close")}
    try:
        return ShutdownPlan(**{name: value for name, value in given.items() if value is not None})
    except InvalidPlan:
        return None


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 <= value < 1e9 else None
