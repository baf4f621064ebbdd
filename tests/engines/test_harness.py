"""What the conformance suite stands on: its clock, its watch over statuses, its list of cases."""

import pytest

from lastcall.jobs._engine import Engine
from lastcall.jobs._rows import NewJob
from lastcall.jobs._state import JobStatus
from lastcall.testing import VirtualClock
from lastcall.testing.conformance import Case, Harness, cases, transaction_cases
from tests.engines.model import ModelEngine, ModelStore

pytestmark = pytest.mark.loops("asyncio")


class SendsCompletes(ModelEngine):
    """A broken engine: a message completes the job it is sent to."""

    async def send(self, job_id: str, name: str, data: str) -> JobStatus | None:
        self.store.jobs[job_id].status = JobStatus.COMPLETED
        return JobStatus.COMPLETED


class SendsDeletes(ModelEngine):
    """A broken engine: a message deletes the job it is sent to."""

    async def send(self, job_id: str, name: str, data: str) -> JobStatus | None:
        del self.store.jobs[job_id]
        return None


class BrokenHarness(Harness):
    """Two objects of a broken engine on one store."""

    def __init__(self, engine: type[ModelEngine]) -> None:
        super().__init__()
        self.kind = engine
        self.store = ModelStore()

    def make(self) -> Engine:
        return self.kind(self.clock, self.store)


async def sends(h: Harness) -> None:
    await h.engine.submit([NewJob("a", "t", "[]")])
    await h.engine.send("a", "go", "1")


@pytest.mark.parametrize(
    ("engine", "message"),
    [(SendsCompletes, "is not in the table"), (SendsDeletes, "deleted a, which is queued")],
)
async def test_a_change_that_is_not_in_the_table_fails_the_case(
    engine: type[ModelEngine], message: str
) -> None:
    """An engine moves a job where the table has no line, in a case that looks at something else."""
    with pytest.raises(AssertionError, match=message):
        await Case("sends", sends).run(BrokenHarness(engine))


def test_every_case_has_a_name_of_its_own_and_says_its_situation() -> None:
    """Two cases of one name would be one test; a case without a docstring tells nobody what broke."""
    everything = cases() + transaction_cases()
    assert len({case.name for case in everything}) == len(everything)
    assert [case.name for case in everything if not case.function.__doc__] == []


def test_time_passes_on_both_clocks() -> None:
    """Half a minute passes."""
    clock = VirtualClock(wall=100.0, monotonic=5.0)
    clock.advance(30.0)
    assert (clock.wall(), clock.monotonic()) == (130.0, 35.0)


def test_only_the_wall_clock_jumps() -> None:
    """The wall clock is set back by an hour and forward by a minute."""
    clock = VirtualClock(wall=10_000.0, monotonic=5.0)
    clock.jump_wall(-3600.0)
    clock.jump_wall(60.0)
    assert (clock.wall(), clock.monotonic()) == (6460.0, 5.0)


def test_time_does_not_go_back() -> None:
    """A test subtracts the wrong way round and lets a negative time pass: refused, nothing moved."""
    clock = VirtualClock(wall=100.0, monotonic=5.0)
    with pytest.raises(ValueError, match="jump_wall"):
        clock.advance(-1.0)
    assert (clock.wall(), clock.monotonic()) == (100.0, 5.0)
