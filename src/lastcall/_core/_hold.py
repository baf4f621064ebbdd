"""Hold: counts somebody else's task among the work that a shutdown waits for."""

from __future__ import annotations

import asyncio
from contextvars import Token
from types import TracebackType
from typing import Self

from ._clock import check_seconds
from ._record import Record
from ._roster import Roster
from ._scope import Scope, Shutdown, current_scope
from ._state import Kind, StopReason


class Hold:
    """Work held by `manager.hold(...)`. Enter and leave it in the same task."""

    __slots__ = ("_grace_seconds", "_kind", "_name", "_record", "_roster", "_token")

    def __init__(self, roster: Roster, name: str, kind: Kind, grace_seconds: float | None) -> None:
        self._roster = roster
        self._name = name
        self._kind = Kind(kind)
        self._grace_seconds = grace_seconds
        self._record: Record | None = None
        self._token: Token[Scope | None] | None = None

    def __enter__(self) -> Self:
        if self._record is not None:
            raise RuntimeError(f"the hold {self._name!r} was entered before")
        self._record = record = self._roster.hold(self._name, self._kind, self._grace_seconds)
        self._token = current_scope.set(Scope(self._roster, record))
        if self._grace_seconds is not None:
            self._roster.set_grace(record, self._grace_seconds)  # it may begin while the drain is under way
        return self

    def __exit__(
        self, et: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        record, token = self._entered(), self._token
        self._roster.release(record)
        if token is not None:
            current_scope.reset(token)

    @property
    def shutdown(self) -> Shutdown:
        """The stop as this work sees it."""
        return Shutdown(self._roster, self._entered())

    @property
    def cancelled(self) -> bool:
        """Whether lastcall has cancelled this work: then the CancelledError inside it is ours to swallow."""
        return self._entered().cancelled_at is not None

    @property
    def reason(self) -> StopReason | None:
        """Why this work was stopped or cancelled."""
        return self.shutdown.reason

    @property
    def kind(self) -> Kind:
        """What it is; may become more exact while it runs (a request that turns out to be a stream)."""
        return self._kind

    @kind.setter
    def kind(self, kind: Kind) -> None:
        self._kind = kind
        if self._record is not None:
            self._record.kind = kind

    @property
    def grace_seconds(self) -> float | None:
        """Its time after the drain began; None: the whole drain."""
        return self._grace_seconds

    @grace_seconds.setter
    def grace_seconds(self, seconds: float | None) -> None:
        self._grace_seconds = seconds if seconds is None else check_seconds("grace_seconds", seconds)
        if self._record is not None:
            self._roster.set_grace(self._record, seconds)

    def stop(self, reason: StopReason) -> None:
        """Tell this work alone to stop: its client left (`disconnect`), its time is over (`timeout`)."""
        record = self._entered()
        record.reason = record.reason or reason
        self._roster.own_node(record).stop(reason, float("inf"))

    def cancel(self, reason: StopReason) -> None:
        """Cancel the task that runs this work, once."""
        self._roster.cancel(self._entered(), reason)

    @property
    def task(self) -> asyncio.Task[object] | None:
        """The task that runs it."""
        return self._entered().live_task

    def _entered(self) -> Record:
        if self._record is None:
            raise RuntimeError(f"the hold {self._name!r} has not been entered")
        return self._record
