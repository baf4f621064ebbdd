"""Which queued jobs a message is sent for again."""

from lastcall.dispatch._sweep import Seen, due
from lastcall.jobs import JobStatus
from lastcall.jobs._rows import JobRow

RESEND_SECONDS = 10.0
WALL = 1_000_000.0


def row(id: str, *, attempt: int = 0, age: float = 0.0) -> JobRow:
    empty = dict.fromkeys(JobRow._fields)
    given = {"id": id, "attempt": attempt, "status": JobStatus.QUEUED, "created_at": WALL - age, "waits": ()}
    return JobRow(**{**empty, **given})  # type: ignore[arg-type]


def look(rows: list[JobRow], seen: dict[str, Seen], now: float) -> tuple[list[str], dict[str, Seen]]:
    wanted, seen = due(rows, seen, now=now, wall=WALL, resend_seconds=RESEND_SECONDS)
    return [row.id for row in wanted], seen


def test_a_new_job_is_left_to_its_submitter() -> None:
    """It was submitted a moment ago: its own message is on its way, and only later it may be taken for lost."""
    rows = [row("new")]
    sent, seen = look(rows, {}, 0.0)
    assert sent == []
    sent, seen = look(rows, seen, 9.9)
    assert sent == []
    sent, seen = look(rows, seen, 10.0)
    assert sent == ["new"]
    sent, seen = look(rows, seen, 19.9)
    assert sent == []
    sent, seen = look(rows, seen, 20.0)
    assert sent == ["new"]


def test_what_was_given_back_is_sent_for_at_once() -> None:
    """Nobody has sent a message for a job that was rescued, woken, or is due only now; each attempt is news."""
    sent, seen = look([row("old", age=5.0), row("rescued", attempt=1)], {}, 0.0)
    assert sent == ["old", "rescued"]
    sent, seen = look([row("old", age=6.0), row("rescued", attempt=2)], seen, 1.0)
    assert sent == ["rescued"]


def test_what_has_begun_is_forgotten() -> None:
    """Memory holds no more than what is looked at."""
    _, seen = look([row("a"), row("b")], {}, 0.0)
    _, seen = look([row("b")], seen, 1.0)
    assert list(seen) == ["b"]


def test_a_backlog_is_not_sent_for_all_at_once() -> None:
    """A hundred jobs are late: they are sent for in turns, none is passed over."""
    rows = [row(str(n), attempt=1) for n in range(100)]
    first, seen = look(rows, {}, 0.0)
    second, seen = look(rows, seen, 0.1)
    third, seen = look(rows, seen, 0.2)
    assert (len(first), len(second), third) == (50, 50, [])
    assert set(first) | set(second) == {row.id for row in rows}
