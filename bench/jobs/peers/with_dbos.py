"""DBOS on SQLite or PostgreSQL: workflows with recorded steps; a worker goes on with what its own name has left."""

import asyncio
import signal
import threading
import types

from dbos import DBOS, DBOSClient, DBOSConfig

from ..marks import mark
from .base import blocking_step, database_path, long_steps, option, store_url, worker_name

QUEUE = "bench"
URL = store_url().replace("postgresql://", "postgresql+psycopg://")


@DBOS.workflow()
def noop(number: int, sent: float) -> int:
    return mark(number, sent)


one_step = DBOS.step()(blocking_step)


@DBOS.workflow()
def long() -> int:
    return long_steps(one_step)


def launch(listen: bool) -> None:
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": URL,
        "application_version": "1",
        "executor_id": worker_name(),
        "log_level": "WARNING",
    }
    DBOS(config=config)
    if not listen:
        DBOS.listen_queues([])
    DBOS.launch()
    DBOS.register_queue(QUEUE, polling_interval_sec=option("polling", 1.0))


def make_tables() -> None:
    launch(listen=False)
    DBOS.destroy()


class Dbos:
    client: DBOSClient

    async def open(self) -> None:
        if not URL.startswith("sqlite") or not database_path().exists():  # a client makes no tables
            await asyncio.to_thread(make_tables)
        self.client = DBOSClient(system_database_url=URL)

    async def close(self) -> None:
        self.client.destroy()

    async def submit(self, number: int, sent: float) -> None:
        self.client.enqueue({"workflow_name": "noop", "queue_name": QUEUE, "app_version": "1"}, number, sent)

    async def submit_long(self) -> None:
        self.client.enqueue({"workflow_name": "long", "queue_name": QUEUE, "app_version": "1"})

    def work(self) -> None:
        stopped = threading.Event()
        seconds = option("destroy")
        if seconds is not None:

            def stop(number: int, frame: types.FrameType | None) -> None:
                stopped.set()

            signal.signal(signal.SIGTERM, stop)
        launch(listen=True)
        stopped.wait()
        DBOS.destroy(workflow_completion_timeout_sec=seconds)


peer = Dbos()
