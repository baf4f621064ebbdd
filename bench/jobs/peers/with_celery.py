"""Celery on Redis, results in Redis. Acknowledged late: by default a job whose worker dies is simply gone."""

from celery import Celery

from ..marks import mark
from .base import become, long_steps, option, store_url

app = Celery("bench", broker=store_url(), backend=store_url())
app.conf.update(
    task_acks_late=True,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)
if option("soft"):
    app.conf.worker_soft_shutdown_timeout = option("soft")
if option("visibility"):
    app.conf.update(
        broker_transport_options={"visibility_timeout": option("visibility")}, task_reject_on_worker_lost=True
    )

noop = app.task(name="noop")(mark)
long = app.task(name="long")(long_steps)


class CeleryPeer:
    async def open(self) -> None:
        return

    async def close(self) -> None:
        app.close()

    async def submit(self, number: int, sent: float) -> None:
        noop.delay(number, sent)

    async def submit_long(self) -> None:
        long.delay()

    def work(self) -> None:
        become(
            *("celery", "-A", __name__, "worker", "-P", option("pool"), "-c", str(option("concurrency"))),
            *("-l", "WARNING", "--without-gossip", "--without-mingle"),
        )


peer = CeleryPeer()
