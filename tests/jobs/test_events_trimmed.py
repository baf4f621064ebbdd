"""How much of a log is kept: the arithmetic, whatever is appended."""

import json

from hypothesis import given
from hypothesis import strategies as st

from lastcall.jobs import JobStatus, StepStatus
from lastcall.jobs._events import ENTRY_BYTES, size_of, status_event, step_event, trimmed_up_to
from lastcall.jobs._rows import NewEvent, StepRecord

SIZES = st.lists(st.integers(1, 2_000), min_size=1, max_size=200)


def kept(sizes: list[int], max_bytes: int, at_once: int) -> list[int]:
    """Which entries a log of this size keeps, when so many are appended at once."""
    upto: list[int] = []
    end = 0
    for start in range(0, len(sizes), at_once):
        before = end
        for size in sizes[start : start + at_once]:
            end += size
            upto.append(end)
        up_to = trimmed_up_to(before, end, max_bytes)
        if up_to is not None:
            upto = [position for position in upto if position > up_to]
    return upto


@given(SIZES, st.integers(1, 50_000))
def test_a_log_is_never_longer_than_it_may_be(sizes: list[int], max_bytes: int) -> None:
    """But for the oldest entry that is kept, of which only the end need be within."""
    end = sum(sizes)
    upto = kept(sizes, max_bytes, 1)
    assert upto[-1] == end
    assert end - upto[0] <= max_bytes
    oldest = len(sizes) - len(upto)
    if oldest:  # nor much shorter
        assert end - upto[0] + sizes[oldest] >= max_bytes - max(1, max_bytes // 16)


@given(SIZES, st.integers(1, 50_000), st.integers(2, 50))
def test_it_does_not_matter_how_many_come_at_once(sizes: list[int], max_bytes: int, at_once: int) -> None:
    """Engines write together what comes together, each in its own way, and keep the same."""
    assert kept(sizes, max_bytes, at_once) == kept(sizes, max_bytes, 1)


def test_what_an_engine_tells() -> None:
    """The entries as readers see them."""
    assert status_event(JobStatus.WAITING) == NewEvent("status", '{"status": "waiting"}')
    told = json.loads(status_event(JobStatus.RUNNING, worker='w"').data)
    assert told == {"status": "running", "worker": 'w"'}
    told = json.loads(status_event(JobStatus.QUEUED, "lost").data)
    assert told == {"status": "queued", "reason": "lost"}
    event = step_event(StepRecord("döner", StepStatus.FAILED, seconds=1 / 3))
    assert (event.type, event.step) == ("step", "döner")
    assert json.loads(event.data) == {"key": "döner", "status": "failed", "seconds": 0.333333}
    assert size_of(NewEvent("n", '"ö"')) == 4 + ENTRY_BYTES
