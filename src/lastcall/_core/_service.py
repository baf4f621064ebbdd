"""Services: long-running coroutines that are started again when they fail, but not for ever.

A restart without a limit hides a broken service behind a busy loop; no restart turns one lost connection
into an outage. So: at most `max_restarts` within `within_seconds` (Erlang's intensity and period), with
exponential backoff and jitter between them; after that the service gives up, loudly.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Literal, NamedTuple, Self

from ..exceptions import ServiceGaveUp
from ._clock import Clock, check_count, check_seconds
from ._diagnose import error_text
from ._roster import logger
from ._scope import current_shutdown

OnGiveUp = Literal["log", "shutdown"]


class _Limits(NamedTuple):
    max_restarts: int
    within_seconds: float
    backoff_seconds: float
    max_backoff_seconds: float
    jitter: float


class RestartPolicy(_Limits):
    """When a failed service is started again.

    `max_restarts` (default 5) within `within_seconds` (60): one failure more, and it gives up.
    The wait before the n-th restart in that time is `backoff_seconds` (0.5) doubled n-1 times, at most
    `max_backoff_seconds` (30), and then spread by `jitter` (0.2: 20 % up or down), so that a fleet does
    not come back in step.

    Raises `InvalidPlan` for impossible seconds, ValueError for impossible counts.
    """

    __slots__ = ()

    def __new__(
        cls,
        max_restarts: int = 5,
        within_seconds: float = 60.0,
        backoff_seconds: float = 0.5,
        max_backoff_seconds: float = 30.0,
        jitter: float = 0.2,
    ) -> Self:
        check_count("RestartPolicy.max_restarts", max_restarts, 0)
        if not 0 <= jitter <= 1:
            raise ValueError(f"RestartPolicy.jitter must be between 0 and 1, not {jitter!r}")
        return super().__new__(
            cls,
            max_restarts,
            check_seconds("RestartPolicy.within_seconds", within_seconds),
            check_seconds("RestartPolicy.backoff_seconds", backoff_seconds),
            check_seconds("RestartPolicy.max_backoff_seconds", max_backoff_seconds),
            jitter,
        )

    def delay_seconds(self, failures: Sequence[float], now: float, spread: float) -> float | None:
        """How long to wait before the next start; None: give up. Pure.

        `failures` are the times of all failures so far, the last one included; `spread` is in [-1, 1].
        """
        recent = sum(1 for at in failures if now - at <= self.within_seconds)
        if recent > self.max_restarts:
            return None
        wait = self.backoff_seconds * 2.0 ** min(max(0, recent - 1), 60)
        return min(wait, self.max_backoff_seconds) * (1 + self.jitter * spread)


async def supervise(
    fn: Callable[[], Coroutine[Any, Any, Any]],
    name: str,
    policy: RestartPolicy,
    clock: Clock,
    report: Callable[[BaseException], None],
    gave_up: Callable[[], None],
) -> None:
    """Run `fn()` until it returns, is cancelled or fails too often. Each failure is reported, the last by giving up."""
    failures: list[float] = []
    while True:
        try:
            await fn()
            return
        except Exception as error:
            now = clock()
            failures = [at for at in failures if now - at <= policy.within_seconds] + [now]
            shutdown = current_shutdown()
            if shutdown.requested:
                raise
            delay = policy.delay_seconds(failures, now, random.uniform(-1, 1))
            if delay is None:
                gave_up()
                raise ServiceGaveUp(
                    f"service {name!r} failed {len(failures)} times within {policy.within_seconds:g} s, given up; "
                    f"the last error was {error_text(error)}"
                ) from error
            report(error)
        logger.warning(
            "service %r starts again in %.2f s (restart %d)",
            name,
            delay,
            len(failures),
            extra={"event": "service.restarted"},
        )
        if await shutdown.sleep(delay):
            return
