"""What a Celery worker imports: `celery -A tests.dispatch.celery_program worker`."""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery

from lastcall import ShutdownPlan
from lastcall.dispatch.celery import CeleryCarrier
from lastcall.jobs import Jobs
from tests.dispatch.work import LONGEST_SECONDS, Place, Work

RESEND_SECONDS = 1.0
PLAN = ShutdownPlan(drain=10, cancel=2, close=2)


class Program:
    """Everything that the test and the worker share."""

    def __init__(self, place: Place) -> None:
        self.app = Celery("tests", broker=place.broker, backend=place.broker, set_as_current=False)
        self.app.conf.update(broker_connection_retry_on_startup=True, task_track_started=True)
        self.app.conf.worker_soft_shutdown_timeout = float(os.environ.get("LASTCALL_TEST_SOFT", "0"))
        self.app.conf.task_soft_time_limit = float(os.environ.get("LASTCALL_TEST_LIMIT", "0")) or None
        self.jobs: Jobs = place.jobs
        self.work = Work(self.jobs, place)
        self.carrier = CeleryCarrier(self.app, self.jobs, plan=PLAN, resend_seconds=RESEND_SECONDS)
        self.double: Any = self.app.task(name="double")(double)
        self.fail: Any = self.app.task(name="fail")(fail)
        self.wait: Any = self.app.task(name="wait")(wait)


def double(number: int) -> int:
    return number * 2


def fail() -> None:
    raise ValueError("as agreed")


def wait() -> None:
    time.sleep(LONGEST_SECONDS)


def __getattr__(name: str) -> Any:
    # Only in a worker, which has been told its place; the tests import this module, too.
    if name == "app":
        globals()["program"] = program = Program(Place.here())
        globals()["app"] = program.app
        return program.app
    raise AttributeError(name)
