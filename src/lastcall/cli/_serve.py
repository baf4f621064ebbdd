"""``lastcall serve``: uvicorn with settings that fit the app's shutdown plan, and an exit code that tells how it ended.

Uvicorn ends itself with the signal it caught, whatever became of the work. Here that signal is taken, and the exit code
is the shutdown report's: 0 when all ended well, 1 when something was cut off, 128 + signal when the stop was forced.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

import uvicorn
import uvicorn.config

from lastcall.asgi import KILL_AFTER_VARIABLE
from lastcall.cli._find import Found, find_lastcall
from lastcall.cli._fit import Choice, choose, graceful_timeout
from lastcall.cli._listen import listen, url_of
from lastcall.cli._load import load_app
from lastcall.cli._say import complain, write

UNUSABLE = 2


def run_serve(
    target: str,
    *,
    host: str,
    port: int,
    kill_after: float | None,
    log_level: str,
    access_log: bool,
    as_json: bool,
) -> int:
    """Serve until a signal, and answer the exit code. Raises `Unusable` before anything has begun."""
    app = load_app(target)
    found = find_lastcall(app)
    kill_after = _kill_after(kill_after)
    choices = choose(None if found is None else found.manager.plan, kill_after)
    with listen(host, port) as listener, _Signals() as signals:

        def tell() -> None:
            _tell(target, listener, choices, found, as_json)

        config = uvicorn.Config(
            app,
            lifespan="on",
            timeout_graceful_shutdown=graceful_timeout(choices),
            log_level=log_level,
            access_log=access_log,
            log_config=_log_config(log_level),
        )
        server = _Server(config, tell, has_plan=found is not None)
        try:
            server.run(sockets=[listener])
        except SystemExit:  # how it says that the app has not started
            pass
    if not server.has_started:
        return UNUSABLE  # uvicorn has said why
    return _exit_code(found, signals.seen)


def _kill_after(given: float | None) -> float | None:
    """The option, else what the environment says; the app compares it with its plan, too, and logs what it finds."""
    if given is not None:
        os.environ[KILL_AFTER_VARIABLE] = f"{given:g}"
        return given
    try:
        return float(os.environ[KILL_AFTER_VARIABLE])
    except (KeyError, ValueError):
        return None


def _log_config(level: str) -> dict[str, Any]:
    """Uvicorn's own, with all lines on standard error, and ours among them, unless the app has configured logging."""
    config = copy.deepcopy(uvicorn.config.LOGGING_CONFIG)
    config["handlers"]["access"]["stream"] = "ext://sys.stderr"
    if not logging.getLogger().handlers:
        config["loggers"]["lastcall"] = {"handlers": ["default"], "level": level.upper(), "propagate": False}
    return config


def _exit_code(found: Found | None, seen: list[int]) -> int:
    report = None if found is None else found.manager.report
    if report is None:
        return 0
    if report.forced and seen:
        return 128 + seen[-1]
    return report.exit_code


def _tell(
    target: str, listener: socket.socket, choices: list[Choice], found: Found | None, as_json: bool
) -> None:
    url = url_of(listener)
    if as_json:
        chosen = [choice._asdict() for choice in choices]
        told = {
            "app": target,
            "url": url,
            "pid": os.getpid(),
            "lastcall": found is not None,
            "chosen": chosen,
        }
        write(json.dumps(told) + "\n")
        return
    lines = [f"lastcall serve: {target} on {url}, process {os.getpid()}"]
    widest = max(len(choice.name) for choice in choices)
    lines += [f"  {choice.name:<{widest}}  {choice.value}: {choice.why}" for choice in choices]
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    if found is None:
        complain(f"{target} has no lastcall: its work is lost at a stop. Add install(app) to it")


class _Server(uvicorn.Server):
    """A uvicorn server that tells when it has started, and leaves a second Ctrl-C to the plan, if there is one.

    Uvicorn's own answer to that is to leave without the lifespan's end, which it logs as an error of the app.
    """

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], object], *, has_plan: bool) -> None:
        super().__init__(config)
        self.has_started = False
        self._has_plan = has_plan
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.has_started = True
            self._on_started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not (self._has_plan and self.should_exit):
            super().handle_exit(sig, frame)


class _Signals:
    """Takes the signals that uvicorn hands back at its end, which by default would end this process right there."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, et: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.seen.append(number)
