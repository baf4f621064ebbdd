"""What can be declared of a task: plain values, checked where they are made."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Self

from .._core._clock import check_count, check_seconds
from ..exceptions import BadDeclaration, InvalidPlan
from ._rows import DEFAULT_LOG_MAX_BYTES, DEFAULT_MAX_ATTEMPTS, DEFAULT_MAX_LOST, DEFAULT_QUEUE, TaskLimits

Run = Literal["auto", "thread", "process"]

LOWEST_PRIORITY = -1_000_000

_BILLION = 1_000_000_000


def seconds(name: str, value: float, *, zero: bool = True) -> float:
    """`value` as a float, or `BadDeclaration`."""
    try:
        return check_seconds(name, value, zero=zero)
    except InvalidPlan as error:
        raise BadDeclaration(str(error)) from None
    except OverflowError:
        raise BadDeclaration(f"{name} must be a finite number of seconds, not {value!r}") from None


def whole(name: str, value: int, at_least: int) -> int:
    """`value` itself, or `BadDeclaration`. Not above a billion: stores count with 64 bits."""
    try:
        check_count(name, value, at_least)
    except ValueError as error:
        raise BadDeclaration(str(error)) from None
    if value > _BILLION:
        raise BadDeclaration(f"{name} must be a billion at most, not {value!r}")
    return value


def text(name: str, value: str, *, longest: int = 200) -> str:
    """`value` itself: a printable text that is not empty; or `BadDeclaration`."""
    if not isinstance(value, str) or not value or len(value) > longest or not value.isprintable():
        raise BadDeclaration(
            f"{name} must be a printable text of 1 to {longest} characters, not {shown(value)}"
        )
    return value


def is_unicode(value: Any) -> bool:
    """Whether it is a text that can be written: a name of a file may be a string and no Unicode."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def shown(value: Any) -> str:
    """A value in a message: short, whatever it is."""
    try:
        text = repr(value)
    except Exception:
        text = f"<{type(value).__qualname__}>"
    return text if len(text) <= 80 else text[:77] + "..."


class _Wait(NamedTuple):
    first_seconds: float
    factor: float
    max_seconds: float
    jitter: float


class Backoff(_Wait):
    """How long a failed job waits before its next attempt.

    `first_seconds` (default 1) times `factor` (2) for each further failure, at most `max_seconds` (300), then
    spread by `jitter` (0.2: 20 % up or down), so that jobs which failed together do not come back together.

    Raises `BadDeclaration` for numbers that make no sense.

        @jobs.task(retries=5, backoff=Backoff(first_seconds=0.5, max_seconds=60))
    """

    __slots__ = ()

    def __new__(
        cls, first_seconds: float = 1.0, factor: float = 2.0, max_seconds: float = 300.0, jitter: float = 0.2
    ) -> Self:
        if not isinstance(factor, int | float) or not 1 <= factor <= 100:
            raise BadDeclaration(f"Backoff.factor must be between 1 and 100, not {factor!r}")
        if not isinstance(jitter, int | float) or not 0 <= jitter <= 1:
            raise BadDeclaration(f"Backoff.jitter must be between 0 and 1, not {jitter!r}")
        first = seconds("Backoff.first_seconds", first_seconds)
        return super().__new__(
            cls, first, float(factor), seconds("Backoff.max_seconds", max_seconds), float(jitter)
        )

    def delay_seconds(self, failures: int, spread: float) -> float:
        """The wait after the n-th failure, n from 1. `spread` is in [-1, 1]. Pure."""
        wait = self.first_seconds * self.factor ** min(max(0, failures - 1), 64)
        return min(wait, self.max_seconds) * (1 + self.jitter * spread)


class Rate(NamedTuple):
    """At most `starts` jobs begin per `seconds`, over all workers: a bucket, full at first, refilled evenly."""

    starts: int
    seconds: float = 1.0


class Settings(NamedTuple):
    """Everything declared of a task but its function. `jobs.task(...)` has the meanings."""

    name: str
    version: str = ""
    queue: str = DEFAULT_QUEUE
    priority: int = 0
    retries: int = 0
    backoff: Backoff = Backoff()
    give_up_on: tuple[type[Exception], ...] = ()
    timeout_seconds: float | None = None
    concurrency: int | None = None
    concurrency_key: Any = None
    concurrency_per_key: int = 1
    rate: Rate | None = None
    retention_seconds: float | None = None
    log_max_bytes: int = DEFAULT_LOG_MAX_BYTES
    log_retention_seconds: float | None = None
    max_lost: int = DEFAULT_MAX_LOST
    max_attempts: int = DEFAULT_MAX_ATTEMPTS
    run: Run = "auto"
    cron: str | None = None
    timezone: str = "UTC"
    catch_up: bool = False

    @property
    def limits(self) -> TaskLimits | None:
        """What claims must respect; None: nothing."""
        if self.concurrency is None and self.rate is None:
            return None
        if self.rate is None:
            return TaskLimits(self.concurrency)
        return TaskLimits(self.concurrency, self.rate.starts, self.rate.seconds)

    def checked(self) -> Settings:
        """These settings themselves, or `BadDeclaration` naming what is wrong with them."""
        where = f"task {self.name!r}: "
        text(where + "name", self.name)
        text(where + "queue", self.queue)
        if self.version != "":
            text(where + "version", self.version)
        whole(where + "priority", self.priority, LOWEST_PRIORITY)
        whole(where + "retries", self.retries, 0)
        whole(where + "concurrency_per_key", self.concurrency_per_key, 1)
        whole(where + "max_lost", self.max_lost, 1)
        whole(where + "max_attempts", self.max_attempts, 1)
        whole(where + "log_max_bytes", self.log_max_bytes, 1)
        if self.concurrency is not None:
            whole(where + "concurrency", self.concurrency, 1)
        for name in ("timeout_seconds", "retention_seconds", "log_retention_seconds"):
            if getattr(self, name) is not None:
                seconds(
                    where + name.removesuffix("_seconds"), getattr(self, name), zero=name != "timeout_seconds"
                )
        if not (
            self.concurrency_key is None
            or isinstance(self.concurrency_key, str)
            or callable(self.concurrency_key)
        ):
            raise BadDeclaration(
                f"{where}concurrency_key must be the name of a parameter or a function, not {self.concurrency_key!r}"
            )
        for error in self.give_up_on:
            if not (isinstance(error, type) and issubclass(error, Exception)):
                raise BadDeclaration(f"{where}give_up_on must be classes of exceptions, not {error!r}")
        if self.rate is not None:
            if not isinstance(self.rate, Rate):
                raise BadDeclaration(f"{where}rate must be a Rate, not {self.rate!r}")
            whole(where + "rate.starts", self.rate.starts, 1)
            seconds(where + "rate.seconds", self.rate.seconds, zero=False)
        if self.run not in ("auto", "thread", "process"):
            raise BadDeclaration(f"{where}run must be 'auto', 'thread' or 'process', not {self.run!r}")
        if not isinstance(self.backoff, Backoff):
            raise BadDeclaration(f"{where}backoff must be a Backoff, not {self.backoff!r}")
        return self
