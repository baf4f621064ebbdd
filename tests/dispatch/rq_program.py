"""What an RQ worker imports: `rq worker --worker-class tests.dispatch.rq_program.Worker`."""

from __future__ import annotations

import time
from typing import Any

from redis import Redis
from rq import Queue

from lastcall import ShutdownPlan
from lastcall.dispatch.rq import RqCarrier
from lastcall.jobs import Jobs
from tests.dispatch.work import LONGEST_SECONDS, Place, Work

RESEND_SECONDS = 1.0
PLAN = ShutdownPlan(drain=10, cancel=2, close=2)


class Program:
    """Everything that the test and the worker share."""

    def __init__(self, place: Place) -> None:
        self.redis = Redis.from_url(place.broker)
        self.queue = Queue("jobs", connection=self.redis)
        self.jobs: Jobs = place.jobs
        self.work = Work(self.jobs, place)
        self.carrier = RqCarrier(self.queue, self.jobs, plan=PLAN, resend_seconds=RESEND_SECONDS)


def double(number: int) -> int:
    return number * 2


def fail() -> None:
    raise ValueError("as agreed")


def wait() -> None:
    time.sleep(LONGEST_SECONDS)


def __getattr__(name: str) -> Any:
    # Only in a worker, which has been told its place; the tests import this module, too.
    if name == "Worker":
        globals()["program"] = program = Program(Place.here())
        globals()["Worker"] = worker = program.carrier.worker_class()
        return worker
    raise AttributeError(name)
