"""RQ on Redis: a fork for each job, or (`simple`) one after another in the worker's own process."""

from redis import Redis
from rq import Queue, Retry

from ..marks import mark
from .base import become, long_steps, option, store_url

queue = Queue(connection=Redis.from_url(store_url()))


def noop(number: int, sent: float) -> int:
    return mark(number, sent)


def long() -> int:
    return long_steps()


class Rq:
    async def open(self) -> None:
        return

    async def close(self) -> None:
        return

    async def submit(self, number: int, sent: float) -> None:
        queue.enqueue(noop, number, sent)

    async def submit_long(self) -> None:
        retry = option("retry")
        queue.enqueue(long, retry=Retry(max=retry) if retry else None)

    def work(self) -> None:
        kind = ["--worker-class", "rq.SimpleWorker"] if option("simple") else []
        become("rq", "worker", "--url", store_url(), "--quiet", *kind)


peer = Rq()
