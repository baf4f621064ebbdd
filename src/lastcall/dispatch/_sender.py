"""Messages on their way to a broker, in a thread: a broker that is slow or away holds up no loop and no `submit`.

Who calls it: whoever has submitted a job, and the worker for what it has given back. What it owns: one daemon thread,
made at the first message, so that it is never carried through a fork. What can go wrong: the broker is away; then the
message is dropped, which is told once, because the sweep sends again.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Final

from .._core._diagnose import error_text
from .._core._observer import Ended
from .._core._roster import logger
from ..jobs import JobObserver
from ..jobs._rows import NewJob

# A backlog of this many means that the broker is away; those behind it would be sent again anyway.
_MOST: Final = 10_000


class Sender:
    """`publish(job_id, queue)` puts one message into the broker, and may block and raise."""

    def __init__(self, publish: Callable[[str, str], None], carrier: str) -> None:
        self._publish = publish
        self._carrier = carrier
        self._messages: queue.SimpleQueue[tuple[str, str] | None]
        self._thread: threading.Thread | None = None
        self._is_failing = False

    def send(self, job_id: str, queue_name: str) -> None:
        """Send a message, soon. Never raises for the broker's sake."""
        if self._thread is None or not self._thread.is_alive():  # dead: this process was forked from its own
            self._begin()
        if self._messages.qsize() < _MOST:
            self._messages.put((job_id, queue_name))

    def close(self, timeout_seconds: float) -> None:
        """Wait until what is on its way has left, at most so long. Sending again begins anew."""
        thread, self._thread = self._thread, None
        if thread is not None and thread.is_alive():
            self._messages.put(None)
            thread.join(timeout_seconds)

    def _begin(self) -> None:
        # A queue for each thread: one that hangs in the broker must not take what is meant for the next.
        self._messages = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=self._run, args=(self._messages,), name="lastcall sender", daemon=True
        )
        self._thread.start()

    def _run(self, messages: queue.SimpleQueue[tuple[str, str] | None]) -> None:
        while (message := messages.get()) is not None:
            try:
                self._publish(*message)
            except Exception as error:
                if not self._is_failing:
                    logger.warning(
                        "no message for job %s could be sent through %s: %s; the job is written down, and a worker's "
                        "sweep sends again",
                        message[0],
                        self._carrier,
                        error_text(error),
                    )
                self._is_failing = True
            else:
                self._is_failing = False


class Submissions(JobObserver):
    """Sends a message for every job that is submitted in this process, once it is committed."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def submit_started(self, jobs: Sequence[NewJob]) -> Ended | None:
        # One that is due later is seen by the sweep when it is: an early message would find nothing.
        ready = [(job.id, job.queue) for job in jobs if not job.delay_seconds and job.due_at is None]

        def ended(error: BaseException | None) -> None:
            if error is None:
                for job_id, queue_name in ready:
                    self._sender.send(job_id, queue_name)

        return ended
