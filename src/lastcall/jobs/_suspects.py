"""When a worker takes no new jobs for a while, so that it runs empty and can take a suspect. Pure: no clock, no loop.

Who calls it: the fetcher, at each of its rounds. A suspect (a job that may be what kills its workers, see
`Engine.claim`) runs alone, so only a worker that holds nothing gets it; and a busy worker does not become empty by
itself.

Nobody knows how long the jobs still run that a worker would have to wait for. To wait for them without an end would let
one suspect, which may be harmless, stop a worker; never to wait would let a suspect of a busy queue wait for ever. So a
pause is short, and after it the worker works for ten times as long: that costs a tenth of its room at the most. Where
it never runs empty in half a minute (jobs that take hours), the suspect waits until one of the workers happens to.

All workers hear of a suspect at nearly the same time. If all of them paused at once there would be a standstill, and
one of them is enough; so the first pause begins some time later, each worker at a time of its own.
"""

from __future__ import annotations

from typing import Final, NamedTuple

PAUSE_SECONDS: Final = 30.0
WORK_FACTOR: Final = 10.0
# The first pause comes within so many seconds after a suspect was heard of, later ones that much later than they could.
SPREAD_SECONDS: Final = 120.0


class Pausing(NamedTuple):
    """Where a worker is. `begins_at`: when its pause begins, or began (None: no suspect waits that it has heard of).
    `ends_at`: when the pause ends, while there is one. `not_before`: it works at least until then."""

    begins_at: float | None = None
    ends_at: float | None = None
    not_before: float = 0.0

    @property
    def is_paused(self) -> bool:
        """Whether it takes nothing now (`at` has been asked)."""
        return self.ends_at is not None

    def at(self, now: float) -> Pausing:
        """What time has made of it: the pause begins, or has lasted long enough."""
        if self.ends_at is not None:
            return self._worked_off(now) if now >= self.ends_at else self
        if self.begins_at is not None and now >= self.begins_at:
            return self._replace(begins_at=now, ends_at=now + PAUSE_SECONDS)
        return self

    def heard(self, now: float, suspect_waits: bool, luck: float) -> Pausing:
        """After a claim has told whether a suspect waits for this worker. `luck`: a random number between 0 and 1."""
        if not suspect_waits:
            return self._worked_off(now)
        if self.begins_at is None:
            return self._replace(begins_at=max(now, self.not_before) + luck * SPREAD_SECONDS)
        return self

    def look_again_in(self, now: float) -> float | None:
        """In how many seconds a pause begins or ends."""
        when = self.begins_at if self.ends_at is None else self.ends_at
        return None if when is None else max(0.0, when - now)

    def _worked_off(self, now: float) -> Pausing:
        """No pause any more. A short one is soon made up for."""
        if self.ends_at is None or self.begins_at is None:
            return self._replace(begins_at=None)
        return Pausing(not_before=now + WORK_FACTOR * (now - self.begins_at))
