"""Reads the ledger of a deploy scenario: pure, so that it can be tested without waiting for anything."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from .marks import Line


@dataclass(frozen=True)
class Facts:
    """What the ledger does not know. Times are on the ledger's clock."""

    old_worker: int
    signalled_at: float
    again_from: float
    """From when on "began again" counts: the start of the new worker, or the signal if another worker was there."""
    watched_seconds: float


@dataclass(frozen=True)
class Reading:
    """`began_again_seconds` and `from_step` are None if the job was not started again."""

    told: str
    steps_before: int
    began_again_seconds: float | None
    from_step: int | None
    steps_twice: int
    finished: bool
    verdict: str


def read(lines: Sequence[Line], facts: Facts) -> Reading:
    """What became of the job."""
    steps = [(line, int(line.value)) for line in lines if line.what == "step"]
    before = {number for line, number in steps if line.worker == facts.old_worker}
    again = next(((line, number) for line, number in steps if line.worker != facts.old_worker), None)
    runs = Counter(number for _, number in steps)
    twice = sum(1 for times in runs.values() if times > 1)
    finished = any(line.what == "done" for line in lines)
    began, number = (None, None) if again is None else (again[0].at - facts.again_from, again[1])
    return Reading(
        told=_told(lines, facts),
        steps_before=len(before),
        began_again_seconds=began,
        from_step=number,
        steps_twice=twice,
        finished=finished,
        verdict=_verdict(number, twice, finished, facts.watched_seconds),
    )


def _told(lines: Sequence[Line], facts: Facts) -> str:
    """What the job heard first after the signal, and how soon."""
    for line in lines:
        if line.what == "told" and line.worker == facts.old_worker and line.at >= facts.signalled_at:
            return f"{line.value.split(' ')[0]}@{line.at - facts.signalled_at:.2f}s"
    return "no"


def _verdict(from_step: int | None, twice: int, finished: bool, watched_seconds: float) -> str:
    if from_step is None:
        return (
            "finished by the old worker" if finished else f"not started again within {watched_seconds:.0f} s"
        )
    if from_step == 0:
        text = "restarted from scratch"
    else:
        text = "resumed" if twice else "resumed, no step twice"
    return text if finished else f"{text}, not finished"
