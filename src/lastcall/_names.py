"""The names of everything that is told: metrics, spans, fields of log lines, events of a job's log.

Who reads it: `otel`, `prometheus`, `logs`, the page docs/observability.md, which is written from it, and the tests that
hold dashboard and alerts against it. A name stands here and nowhere else.
"""

from __future__ import annotations

import json
import time
from typing import Literal, NamedTuple

Shape = Literal["gauge", "counter", "histogram"]


class Metric(NamedTuple):
    """`name` as OpenTelemetry writes it; `attributes` are the labels."""

    name: str
    shape: Shape
    unit: str
    attributes: tuple[str, ...]
    about: str

    @property
    def prometheus(self) -> str:
        """The name as Prometheus writes it, without the endings that its histograms add."""
        name = self.name.replace(".", "_")
        if self.unit == "s":
            name += "_seconds"
        return name + "_total" if self.shape == "counter" else name


READY = Metric(
    "lastcall.ready",
    "gauge",
    "1",
    ("manager",),
    "1 while new work is welcome, 0 from the first moment of a shutdown",
)
TASKS = Metric(
    "lastcall.tasks", "gauge", "{task}", ("manager", "status"), "tasks that live now: pending, running"
)
CALLS = Metric(
    "lastcall.calls", "gauge", "{call}", ("manager",), "requests, streams and WebSockets that are held now"
)
TASKS_ENDED = Metric(
    "lastcall.tasks.ended",
    "counter",
    "{task}",
    ("manager", "status"),
    "tasks that have ended: completed, failed, cancelled",
)
SWALLOWED = Metric(
    "lastcall.tasks.swallowed",
    "counter",
    "{task}",
    ("manager",),
    "tasks that were cancelled and ended as if they had not been",
)
DRAIN_SECONDS = Metric(
    "lastcall.drain.duration",
    "histogram",
    "s",
    ("manager", "clean"),
    "how long shutdowns took, and whether anything was cut off, failed or left behind",
)

JOBS = Metric("lastcall.jobs", "gauge", "{job}", ("queue", "status"), "jobs in the store by status")
WORKERS = Metric("lastcall.workers", "gauge", "{worker}", (), "workers with a lease, of all processes")
SLOTS = Metric(
    "lastcall.workers.slots", "gauge", "{job}", (), "how many jobs these workers run at once, at most"
)
LEASE_AGE = Metric(
    "lastcall.workers.lease.age",
    "gauge",
    "s",
    (),
    "how long ago the worker that has been silent longest renewed its lease",
)
SUBMITTED = Metric(
    "lastcall.jobs.submitted", "counter", "{job}", ("task", "queue"), "jobs submitted by this process"
)
ATTEMPTS_RUNNING = Metric(
    "lastcall.attempts.running", "gauge", "{attempt}", ("task",), "attempts that this process runs now"
)
ATTEMPTS = Metric(
    "lastcall.attempts",
    "counter",
    "{attempt}",
    ("task", "outcome", "reason"),
    "ended attempts of this process: completed, failed, cancelled, lost, handed_over (reason: shutdown, waiting)",
)
ATTEMPT_SECONDS = Metric(
    "lastcall.attempt.duration", "histogram", "s", ("task", "outcome"), "how long attempts ran"
)
STEP_SECONDS = Metric(
    "lastcall.step.duration",
    "histogram",
    "s",
    ("task", "outcome"),
    "how long steps ran: completed, failed, cancelled",
)
LATENCY = Metric(
    "lastcall.queue.latency",
    "histogram",
    "s",
    ("task", "queue"),
    "from when a job could run until its first attempt began",
)
ENTRIES = Metric(
    "lastcall.stream.entries",
    "counter",
    "{entry}",
    ("task",),
    "entries that this process has written to the logs of jobs",
)

METRICS = (
    READY, TASKS, CALLS, TASKS_ENDED, SWALLOWED, DRAIN_SECONDS, JOBS, WORKERS, SLOTS, LEASE_AGE, SUBMITTED,
    ATTEMPTS_RUNNING, ATTEMPTS, ATTEMPT_SECONDS, STEP_SECONDS, LATENCY, ENTRIES,
)  # fmt: skip

# Of histograms: from a commit to the longest that somebody waits for.
BOUNDS_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0)


class Named(NamedTuple):
    """Something else that has a name."""

    name: str
    about: str


SPAN_TASK = Named(
    "task {name}",
    "a task, birth to end; linked to the span that started it, or below it where a group's block waits",
)
SPAN_SUBMIT = Named("submit {task}", "a submission, until its commit; below the span that submits")
SPAN_ATTEMPT = Named("run {task}", "one attempt; linked to the submission, from whatever process")
SPAN_STEP = Named("step {name}", "a step that runs; below its attempt. A step that is remembered has none")
SPAN_SHUTDOWN = Named("shutdown {manager}", "a shutdown with its phases as events")

SPANS = (SPAN_TASK, SPAN_SUBMIT, SPAN_ATTEMPT, SPAN_STEP, SPAN_SHUTDOWN)

LOG_FIELDS = (
    Named("manager", "the name of the task's manager"),
    Named("task_id", "the task that runs, as `manager.info(task_id)` knows it"),
    Named("task_name", "its name"),
    Named("job_id", "the job"),
    Named("job_task", "the job's task, by the name it is declared with"),
    Named("attempt", "which attempt of the job, from 1"),
    Named("step", "the step's key"),
    Named("event", "what a line of lastcall's own tells; see below"),
)

# The `event` of the lines that an operator may want to count or to be woken by. All are of the logger `lastcall`.
LOG_EVENTS = (
    Named("task.failed", "a task has raised, and nobody took its exception (error)"),
    Named("task.cancel_refused", "a task was cancelled and still runs; its stack is in the line (warning)"),
    Named("task.cancel_swallowed", "a task was cancelled and ended as if it had not been (warning)"),
    Named("on_error.failed", "a manager's on_error has raised itself (error)"),
    Named("service.restarted", "a service has failed and starts again (warning)"),
    Named("observer.failed", "an observer has raised; the work goes on (error)"),
    Named("shutdown.begun", "`lastcall.run` was told to stop (info)"),
    Named("shutdown.ended", "the report of a shutdown (info if it is clean, else warning)"),
    Named("shutdown.report_not_kept", "the store would not take the report; this log has it (warning)"),
    Named(
        "shutdown.report_unreadable", "the report of another process is left out of a list of them (warning)"
    ),
    Named("process.forced_exit", "the process would not end, and is ended (critical)"),
    Named("attempt.failed", "a job has raised; whether it is tried again is in the line (warning)"),
    Named("attempt.lost", "a dead worker's job was taken from it (warning)"),
    Named("attempt.given_up", "a job was cancelled and still runs; it counts no more (error)"),
    Named("attempt.cancel_swallowed", "a job that was to leave its worker went on and returned (warning)"),
    Named("attempt.cancelled_by_others", "a job's task was cancelled, but not by lastcall (warning)"),
    Named(
        "attempt.step_forgotten", "a job has completed without asking for a step that is recorded (warning)"
    ),
    Named("attempt.end_refused", "the end of an attempt came too late; the job is somebody else's (warning)"),
    Named("attempt.end_not_written", "a worker ends and could not write how an attempt ended (error)"),
    Named("worker.lease_lost", "a worker was taken for dead while it lived; its jobs run elsewhere (error)"),
    Named("worker.jobs_left", "a worker ends, and jobs that would not were handed over (warning)"),
    Named("worker.not_resigned", "a worker could not end its lease; it runs out (error)"),
    Named("worker.runs_empty", "a worker begins nothing new, so that a suspect can run alone (info)"),
    Named("schedule.passed_over", "ticks were missed, and are not made up for (warning)"),
    Named("store.away", "the store does not answer; what is to be written waits (warning)"),
    Named("store.back", "it answers again (info)"),
    Named("store.failed", "the store has refused in a way that nobody expected; it is tried again (error)"),
)

# What jobs and their workers write to the log of a job; a program's own `ctx.emit` may write others.
JOB_EVENTS = (
    Named("status", "what the job has become"),
    Named("step", "a step has ended"),
    Named("step.reset", "what this step has told is taken back: it runs again"),
    Named("stream.text", "a piece of a stream's text"),
    Named("stream.data", "a piece of a stream that is no text"),
    Named("stream.end", "this stream is complete"),
    Named("stream.reset", "what this stream has told is taken back: it is written again"),
    Named("progress", "how far the job is"),
    Named("log", "a line of `ctx.log`"),
    Named("tool.call", "an agent calls a tool"),
    Named("tool.result", "the tool has answered"),
    Named("approval.requested", "an agent waits for somebody's approval"),
    Named("result.requested", "an agent waits for the result of a tool that others run"),
    Named("interrupt.requested", "a graph waits for an answer"),
    Named("openai.response", "which response of OpenAI's this run goes on with"),
    Named("langgraph.custom", "what a graph has written by itself"),
)  # fmt: skip


# --- what the two kinds of metrics share ---------------------------------------------------------------


def waited_seconds(attempt: int, created_at: float, options: str | None) -> float | None:
    """How long a job has waited for its first attempt, which begins now: since it was submitted, or since it was due,
    if that was to be later. None for later attempts. `options`: the job's, which keep what it was submitted with."""
    if attempt > 1:
        return None
    given = {} if options is None else json.loads(options)
    due_at: float = given.get("due_at", created_at + given.get("delay", 0.0))
    return max(0.0, time.time() - max(due_at, created_at))


def outcome_of(error: BaseException | None) -> str:
    """How a step has ended that raised this, or nothing."""
    if error is None:
        return "completed"
    return "failed" if isinstance(error, Exception) else "cancelled"
