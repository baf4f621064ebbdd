"""The checker sees what it is for: each fault is planted into a run without one, and named."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lastcall.jobs import AttemptOutcome, JobStatus
from tests.jobs.crash import checker
from tests.jobs.crash.checker import Broken, Facts
from tests.jobs.crash.forks import Nursery
from tests.jobs.crash.ledger import Line
from tests.jobs.crash.plays import Trapped, expected, play

pytestmark = pytest.mark.slow


class Run:
    """A run that can be tampered with: the ledger's lines, and what the store knows of the rich job."""

    def __init__(self, played: Trapped) -> None:
        self.lines = list(played.lines)
        self.rich = played.rich
        self._others = [fact for fact in played.facts if fact is not played.rich]

    def broken(self) -> list[Broken]:
        return checker.broken(self.lines, [self.rich, *self._others], expected)

    def change(self, what: str, n: int, **fields: Any) -> None:
        """Change one of the rich job's rows; -1 is the last one."""
        rows = list(getattr(self.rich, what))
        rows[n] = rows[n]._replace(**fields)
        self.rich = self.rich._replace(**{what: rows})

    def tell(self, what: str, key: str, attempt: int, at: float | None = None, pid: int = 1) -> None:
        at = self.lines[-1].at if at is None else at
        self.lines.append(Line(at, pid, self.rich.job.id, attempt, key, what))


def lose_the_job(run: Run) -> None:
    run.lines.append(Line(0.0, 1, "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b", 0, "rich", "submitted"))


def leave_it_running(run: Run) -> None:
    run.rich = run.rich._replace(job=run.rich.job._replace(status=JobStatus.RUNNING))


def change_the_result(run: Run) -> None:
    run.rich = run.rich._replace(job=run.rich.job._replace(result="{}"))


def repeat_a_completed_step(run: Run) -> None:
    run.tell("start", "side 1", run.rich.job.attempt)


def begin_twice_in_an_attempt(run: Run) -> None:
    run.tell("start", "side 1", 1)


def repeat_once(run: Run) -> None:
    run.change("attempts", 0, outcome=AttemptOutcome.LOST)
    run.tell("killed", "", 0)
    run.tell("start", "once", 1, at=0.0)


def record_what_never_happened(run: Run) -> None:
    run.lines = [line for line in run.lines if line.key != "side 2"]


def write_the_row_twice(run: Run) -> None:
    run.rich = run.rich._replace(rows={"row": 2})


def cut_a_step_in_an_orderly_stop(run: Run) -> None:
    run.tell("start", "streamed", 1, at=0.0)


def charge_a_stop(run: Run) -> None:
    run.rich = run.rich._replace(job=run.rich.job._replace(failures=2))


def lose_an_attempt_for_nothing(run: Run) -> None:
    run.change("attempts", 0, outcome=AttemptOutcome.LOST)


def lose_an_attempt_of_the_living(run: Run) -> None:
    run.change("attempts", 0, outcome=AttemptOutcome.LOST)
    run.tell("killed", "", 0, pid=1)


def skip_an_attempt(run: Run) -> None:
    run.rich = run.rich._replace(attempts=run.rich.attempts[1:])


def accept_a_stale_step(run: Run) -> None:
    run.change("steps", 0, ended_at=run.rich.attempts[-1].ended_at)


def accept_a_stale_event(run: Run) -> None:
    run.change("events", -1, attempt=1)


def run_two_copies(run: Run) -> None:
    run.change("attempts", 1, started_at=0.0)


def begin_a_step_after_the_lease(run: Run) -> None:
    run.change("steps", -1, status="started", ended_at=None)
    run.tell("start", "late", 1)


def skip_an_event(run: Run) -> None:
    run.rich = run.rich._replace(events=[*run.rich.events[:3], *run.rich.events[4:]])


def repeat_events_unannounced(run: Run) -> None:
    last = run.rich.events[-1]
    again = last._replace(seq=last.seq + 1, step="side 1", type="told")
    run.rich = run.rich._replace(events=[*run.rich.events, again])


def cancel_unasked(run: Run) -> None:
    run.rich = run.rich._replace(job=run.rich.job._replace(status=JobStatus.CANCELLED))


def ignore_a_cancel(run: Run) -> None:
    run.tell("cancel", "cancelled", 0)


FAULTS: dict[Callable[[Run], None], int] = {
    lose_the_job: 6,
    leave_it_running: 6,
    change_the_result: 6,
    repeat_a_completed_step: 7,
    begin_twice_in_an_attempt: 7,
    repeat_once: 7,
    record_what_never_happened: 7,
    write_the_row_twice: 7,
    cut_a_step_in_an_orderly_stop: 8,
    charge_a_stop: 8,
    lose_an_attempt_for_nothing: 8,
    lose_an_attempt_of_the_living: 8,
    skip_an_attempt: 8,
    accept_a_stale_step: 9,
    accept_a_stale_event: 9,
    run_two_copies: 9,
    begin_a_step_after_the_lease: 9,
    skip_an_event: 10,
    repeat_events_unannounced: 10,
    cancel_unasked: 11,
    ignore_a_cancel: 11,
}


@pytest.fixture(scope="module")
def undisturbed(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Trapped:
    return play(nursery, tmp_path_factory.mktemp("undisturbed") / "run", None, 0)


def test_a_run_without_a_fault_has_none(undisturbed: Trapped) -> None:
    """Nothing was killed, and nothing is found."""
    assert Run(undisturbed).broken() == []


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found(plant: Callable[[Run], None], undisturbed: Trapped) -> None:
    """One thing is wrong in the ledger or in the store, and the promise that it breaks is named."""
    run = Run(undisturbed)
    plant(run)
    assert FAULTS[plant] in {broken.promise for broken in run.broken()}


def test_the_store_is_looked_at_as_it_is(tmp_path: Path) -> None:
    """A store without a job is no error, and no facts."""
    facts: list[Facts] = asyncio.run(checker.look(str(tmp_path / "jobs.db")))
    assert facts == []
