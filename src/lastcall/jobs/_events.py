"""What an engine itself writes into a job's log, in the transaction that changes the job; and which entries go. Pure.

Who calls it: engines. The entries, by what happens, with the attempt that they carry (0: outside of one):

    an attempt begins, and it is not the first one      status running, worker        the new one
    it ends with `Completed`                            status completed (see below)  that one
    with `Failed`, for good                             status failed                 that one
    with `Failed`, to be tried again                    status scheduled, "failed"    that one
    with `HandedOver` (also by `resign`)                status queued, its reason     that one
    with `Suspended`                                    status waiting                that one
    the same, and one of the waits is over already      status queued, "wake"         that one
    it is lost                                          status queued, "lost"         that one
    it is lost, and the job has failed by that          status failed, "lost"         that one
    any of these, but the job is cancelled              status cancelled, its reason  that one
    `cancel`, and the job does not run                  status cancelled, its reason  0
    `retry`                                             status queued, "retry"        0
    a wait is over, and the job is put in line          status queued, "wake"         0
    `record_step` or `transact` has written             step key, status, seconds     that one
    a completed or a failed step

The reason of a cancelled job is the one that it keeps. Nothing is written when a time has come (scheduled to queued),
when a cancel is only asked for, or when a call changes nothing. Most jobs have one attempt, no step and no log, and to
write two entries for each would cost a tenth of what they cost; so the first attempt's start is not told, and
`completed` only where the log holds something. Who reads a log sees both from its job.
"""

from __future__ import annotations

import json
from typing import Final

from ._rows import NewEvent, StepRecord
from ._state import JobStatus

# Reasons beside those of `StopReason`.
FAILED: Final = "failed"
LOST: Final = "lost"
WAKE: Final = "wake"
RETRY: Final = "retry"

# Beside its data an entry costs about so much.
ENTRY_BYTES: Final = 64

# In so many portions a full log is trimmed, so that it is not looked at for each entry.
_PORTIONS: Final = 16

_text = json.JSONEncoder(ensure_ascii=False).encode


def status_event(status: JobStatus, reason: str | None = None, worker: str | None = None) -> NewEvent:
    """The job has this status now."""
    told = {"status": str(status)}
    if reason is not None:
        told["reason"] = str(reason)
    if worker is not None:
        told["worker"] = worker
    return NewEvent("status", json.dumps(told, ensure_ascii=False))


def step_event(step: StepRecord) -> NewEvent:
    """This step was written down as completed or failed."""
    # By hand, because there is one for each step of each job.
    seconds = round(step.seconds, 6)
    data = f'{{"key": {_text(step.key)}, "status": "{step.status.value}", "seconds": {seconds!r}}}'
    return NewEvent("step", data, step.key)


def size_of(event: NewEvent) -> int:
    """How many bytes of a log's `log_max_bytes` it takes."""
    return len(event.data.encode()) + ENTRY_BYTES


def trimmed_up_to(before: int, after: int, max_bytes: int) -> int | None:
    """Which entries go for their size: those that end at or before this position, counted in bytes from the beginning
    of the log; None: none, for now.

    `before` and `after`: how long the log was and is, with all that has gone. The newest entry always stays. It does
    not matter how many entries were written at once.
    """
    portion = max(1, max_bytes // _PORTIONS)
    if before // portion == after // portion:
        return None
    up_to = after // portion * portion - max(1, max_bytes - portion)
    return up_to if up_to > 0 else None
