"""Who is dead, by the server's clock; and what to do when that clock has jumped.

Who calls it: `join`, `renew` and `rescue`, with what they see; it belongs to one engine. PostgreSQL has no clock but
the wall clock, which an administrator, a time server or a failover may set. So each engine compares it with its own
monotonic clock. While both agree, a lease ends when its time has come. After a jump, the time of a lease that was
renewed before it says nothing any more; such a worker is dead when this engine has watched its row for the length of
the lease, and it has not changed.
"""

from __future__ import annotations

from typing import NamedTuple

from ...jobs._processes import ProcessIdentity, is_gone

# The clocks of two servers, before and after a failover, may differ by so much; no lease is that short.
_TOLERANCE_SECONDS = 1.0


class Lease(NamedTuple):
    """A worker's claim to be alive, as its row tells it. Times are the server's."""

    worker_id: str
    process: ProcessIdentity
    seconds: float
    until: float
    renewed_at: float


class Leases:
    """What one engine has seen of the clock and of the workers."""

    def __init__(self) -> None:
        self._wall = 0.0
        self._read: tuple[float, float] | None = None  # when: asked and answered
        self._jumped_at: float | None = None
        self._watched: dict[
            str, tuple[float, float]
        ] = {}  # by worker: its mark, and since when it is the same

    def observe(self, wall: float, asked: float, answered: float) -> None:
        """The server's clock read `wall` at a moment between our own `asked` and `answered`."""
        if self._read is not None:
            shortest, longest = asked - self._read[1], answered - self._read[0]
            passed = wall - self._wall
            if not shortest - _TOLERANCE_SECONDS <= passed <= longest + _TOLERANCE_SECONDS:
                self._jumped_at = wall
        self._wall, self._read = wall, (asked, answered)

    def dead(
        self, leases: list[Lease], wall: float, monotonic: float, here: ProcessIdentity
    ) -> list[tuple[Lease, bool]]:
        """Those whose lease is over, or whose process is certainly gone (True)."""
        self._watch(leases, monotonic)
        found = [(lease, is_gone(lease.process, here)) for lease in leases]
        return [(lease, gone) for lease, gone in found if gone or self._is_over(lease, wall, monotonic)]

    def _watch(self, leases: list[Lease], monotonic: float) -> None:
        before = self._watched
        self._watched = {}
        for lease in leases:
            mark, since = before.get(lease.worker_id, (lease.until, monotonic))
            self._watched[lease.worker_id] = (lease.until, since if mark == lease.until else monotonic)

    def _is_over(self, lease: Lease, wall: float, monotonic: float) -> bool:
        _, since = self._watched[lease.worker_id]
        if monotonic - since >= lease.seconds:
            return True
        trusted = self._jumped_at is None or lease.renewed_at >= self._jumped_at
        return trusted and lease.until <= wall
