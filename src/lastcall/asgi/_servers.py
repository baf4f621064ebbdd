"""Which server runs us, what it can do at a shutdown, and what it will not wait for.

Nothing here is needed for correctness, so everything here is guarded: a server which changes its insides
becomes an unknown one, about whose limits nothing is said.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._core._plan import ShutdownPlan

KILL_AFTER_VARIABLE = "LASTCALL_KILL_AFTER_SECONDS"


@dataclass(frozen=True, slots=True)
class Server:
    """What is known of the server. Limits in seconds, None where there is none or it cannot be known.

    `call_limit_seconds`: it cancels calls in flight after this long.
    `kill_after_seconds`: something kills the process this long after the signal.
    `can_delay`: its own shutdown waits if the signal is passed on later, so that `notice` can keep serving.
    """

    name: str
    can_delay: bool = False
    call_limit_seconds: float | None = None
    call_limit_setting: str = ""
    kill_after_seconds: float | None = None
    kill_after_setting: str = ""

    @property
    def called(self) -> str:
        """The name in a sentence."""
        return self.name or "this server"


def detect_server(receive: object, handlers: Sequence[object]) -> Server:
    """Find the server by what it gave us: the lifespan's `receive`, else its signal handlers."""
    for owner in (owner for thing in (receive, *handlers) for owner in _owners(thing)):
        package = type(owner).__module__.partition(".")[0]
        match package:
            case "uvicorn":
                return _uvicorn(owner)
            case "hypercorn":
                return _hypercorn(owner)
            case "granian":
                return _granian()
            case "gunicorn":
                return _gunicorn(owner)
    return Server("")


def _owners(thing: object, depth: int = 4) -> Iterator[object]:
    """The objects whose methods these are, also behind the closures which frameworks wrap around `receive`."""
    if (owner := getattr(thing, "__self__", None)) is not None:
        yield owner
    elif depth:
        for cell in getattr(thing, "__closure__", None) or ():
            try:
                yield from _owners(cell.cell_contents, depth - 1)
            except ValueError:  # an empty cell
                continue


def _uvicorn(owner: object) -> Server:
    config = getattr(owner, "config", None)
    limit = _seconds(getattr(config, "timeout_graceful_shutdown", None))
    worker = getattr(getattr(config, "callback_notify", None), "__self__", None)
    settings = getattr(worker, "cfg", None)
    if settings is None:
        return Server("uvicorn", True, limit, "uvicorn's --timeout-graceful-shutdown")
    return Server(
        "gunicorn with uvicorn workers",
        True,
        limit,
        "uvicorn's timeout_graceful_shutdown",
        _seconds(getattr(settings, "graceful_timeout", None)),
        "gunicorn's --graceful-timeout",
    )


def _hypercorn(owner: object) -> Server:
    limit = _seconds(getattr(getattr(owner, "config", None), "graceful_timeout", None))
    return Server("hypercorn", False, limit, "hypercorn's --graceful-timeout")


def _gunicorn(owner: object) -> Server:
    settings = getattr(getattr(owner, "logger", None), "cfg", None)
    limit = _seconds(getattr(settings, "graceful_timeout", None))
    return Server(
        "gunicorn", False, kill_after_seconds=limit, kill_after_setting="gunicorn's --graceful-timeout"
    )


def _granian() -> Server:
    limit = _option(sys.argv, "--workers-kill-timeout") or _seconds(
        os.environ.get("GRANIAN_WORKERS_KILL_TIMEOUT")
    )
    return Server(
        "granian", False, kill_after_seconds=limit, kill_after_setting="granian's --workers-kill-timeout"
    )


def _option(arguments: Sequence[str], name: str) -> float | None:
    for index, argument in enumerate(arguments):
        if argument == name and index + 1 < len(arguments):
            return _seconds(arguments[index + 1])
        if argument.startswith(name + "="):
            return _seconds(argument.partition("=")[2])
    return None


def _seconds(value: Any) -> float | None:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None


def call_limit(server: Server) -> float | None:
    """When our calls must be over, a little before the server cuts them off by itself."""
    limit = server.call_limit_seconds
    return None if limit is None else limit - min(0.5, limit / 4)


def check_limits(server: Server, plan: ShutdownPlan, environment: Mapping[str, str]) -> list[str]:
    """What of the plan cannot come true here, one sentence each that names the setting that helps."""
    warnings = []
    if plan.notice and not server.can_delay:
        warnings.append(
            f"the plan's notice of {plan.notice:g} s cannot keep {server.called} serving: it closes its listener "
            f"at the signal, so notice is skipped; use a preStop sleep of {plan.notice:g} s, or take the process "
            "out of the balancer before the signal"
        )
    if server.call_limit_seconds is not None and server.call_limit_seconds < plan.drain:
        warnings.append(
            f"{server.call_limit_setting} cuts calls off after {server.call_limit_seconds:g} s, before the plan's "
            f"drain of {plan.drain:g} s is over; set it to more than {plan.drain + plan.cancel:g}"
        )
    total = plan.total_seconds
    for limit, setting in (
        (server.kill_after_seconds, server.kill_after_setting),
        (
            _seconds(environment.get(KILL_AFTER_VARIABLE)),
            f"{KILL_AFTER_VARIABLE} (terminationGracePeriodSeconds)",
        ),
    ):
        if limit is not None and limit <= total:
            warnings.append(
                f"{setting} kills the process {limit:g} s after the signal, but the shutdown plan may take "
                f"{total:g} s; set it to at least {math.ceil(total) + 5}, or make the plan smaller"
            )
    if (value := environment.get(KILL_AFTER_VARIABLE)) and _seconds(value) is None:
        warnings.append(
            f"{KILL_AFTER_VARIABLE} must be a number of seconds above 0, got {value!r}; it is ignored"
        )
    return warnings
