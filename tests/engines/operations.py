"""What the state machine tells the engines at random: few names and few times, so that jobs meet each other."""

from hypothesis import strategies as st

from lastcall._core._state import StopReason
from lastcall.jobs._rows import (
    DEFAULT_LOG_MAX_BYTES,
    Cancelled,
    Completed,
    Failed,
    HandedOver,
    NewEvent,
    Outcome,
    StepRecord,
    Suspended,
    TaskLimits,
    Wait,
)
from lastcall.jobs._state import FINAL, JobStatus, StepPolicy, StepStatus, WaitKind

# Times are multiples of a quarter of a second, so that every sum of them is exact on both sides.
LEASE_SECONDS = 8.0
DELAYS = st.sampled_from([0.0, 0.5, 2.0, 5.0])
PAUSES = st.sampled_from([0.25, 1.0, 2.0, 5.0, 8.0, 30.0])
JUMPS = st.sampled_from([-3600.0, -3.0, 3.0, 3600.0])

# Few names, so that jobs meet: under one key, one limit, one queue, one step.
TASKS = ("plain", "narrow", "slow")
VERSIONS = ("1", "2")
QUEUES = ("q", "r")
LIMITS = {
    "plain": None,
    "narrow": TaskLimits(concurrency=2),
    "slow": TaskLimits(rate_count=2, rate_seconds=8.0),
}
WORKERS = ("w0", "w1")
STEPS = st.sampled_from(["s1", "s1", "s2", "wait m", "wait d"])
MESSAGES = st.sampled_from(["m", "m", "n", "d"])
REASONS = st.sampled_from([StopReason.USER, StopReason.TIMEOUT, StopReason.GROUP])
LIVING = frozenset(JobStatus) - FINAL
# Which of the things that are there: taken modulo their number.
PICK = st.integers(min_value=0, max_value=1000)
ENGINE = st.sampled_from([0, 1])

NEW_JOBS = st.lists(
    st.fixed_dictionaries(
        {
            "task": st.sampled_from(TASKS),
            "version": st.sampled_from(VERSIONS),
            "queue": st.sampled_from(QUEUES),
            "args": st.sampled_from(["[]", "[1]"]),
            "priority": st.sampled_from([0, 5]),
            "delay_seconds": st.none() | st.none() | st.none() | DELAYS,
            "key": st.none() | st.none() | st.none() | st.sampled_from(["k1", "k2"]),
            "limit_key": st.sampled_from([None, "l", "l"]),
            "limit": st.sampled_from([1, 1, 2]),
            "labels": st.none() | st.just('{"tenant": "x"}'),
            "max_lost": st.sampled_from([1, 2, 3]),
            "max_attempts": st.sampled_from([2, 100]),
            "retention_seconds": st.sampled_from([None, 0.0, 0.0, 5.0]),
            "log_max_bytes": st.sampled_from([DEFAULT_LOG_MAX_BYTES, DEFAULT_LOG_MAX_BYTES, 1, 300, 2000]),
            "log_max_age_seconds": st.sampled_from([None, None, None, 0.0, 2.0]),
        }
    ),
    min_size=1,
    max_size=5,
)
WAITS = st.lists(
    st.sampled_from(
        [
            Wait("nap 2", WaitKind.SLEEP, seconds=2.0),
            Wait("nap 5", WaitKind.SLEEP, seconds=5.0),
            Wait("no nap", WaitKind.SLEEP, seconds=0.0),
            Wait("wait m", WaitKind.SIGNAL, "m"),
            Wait("wait m 5", WaitKind.SIGNAL, "m", 5.0),
            Wait("wait n", WaitKind.SIGNAL, "n", 2.0),
            Wait("wait d", WaitKind.DECISION, "d"),
            Wait("unknown", WaitKind.JOBS, jobs=("nothing",)),
        ]
    ),
    max_size=3,
    unique=True,
)
OUTCOMES: st.SearchStrategy[Outcome] = st.one_of(
    st.just(Completed('{"n": 1}')),
    st.just(Failed('{"type": "E"}')),
    st.builds(Failed, st.just('{"type": "E"}'), DELAYS),
    st.builds(Cancelled, REASONS, st.none() | st.just('{"type": "E"}')),
    st.builds(HandedOver, REASONS),
    WAITS.map(lambda waits: Suspended(tuple(waits))),
)
RECORDS = st.builds(
    StepRecord,
    key=STEPS,
    status=st.sampled_from(
        [StepStatus.COMPLETED, StepStatus.COMPLETED, StepStatus.STARTED, StepStatus.FAILED]
    ),
    value=st.sampled_from(["1", "2"]),
    error=st.none() | st.just('{"type": "E"}'),
    policy=st.sampled_from(list(StepPolicy)),
    main=st.booleans(),
    seconds=st.sampled_from([0.0, 0.5]),
)
EVENTS = st.lists(
    st.builds(NewEvent, st.sampled_from(["log", "progress"]), st.sampled_from(["1", "2"]), st.none() | STEPS),
    max_size=3,
)
STYLES = st.sampled_from(["plain", "plain", "works", "fails"])
# Which fence: mostly the running attempt's own.
STALE = st.sampled_from([0, 0, 0, 0, 0, 0, 0, -1, 1])

# Verbs to be called at the same time; the machine says for which job.
CALLS = st.one_of(
    st.tuples(st.just("submit"), NEW_JOBS),
    st.tuples(st.just("finish"), PICK, OUTCOMES),
    st.tuples(st.just("finish"), PICK, OUTCOMES),
    st.tuples(st.just("claim"), ENGINE),
    st.tuples(st.just("claim"), ENGINE),
    st.tuples(st.just("cancel"), PICK, REASONS),
    st.tuples(st.just("send"), PICK, MESSAGES),
    st.tuples(st.just("record_step"), PICK, RECORDS),
    st.tuples(st.just("append_events"), PICK, EVENTS),
    st.tuples(st.just("retry"), PICK),
    st.tuples(st.just("purge"), PICK),
    st.tuples(st.sampled_from(["renew", "rescue", "resign"]), ENGINE),
)
