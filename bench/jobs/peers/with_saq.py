"""SAQ on Redis."""

from typing import Any

from saq import Queue

from ..marks import mark
from .base import become, option, store_url
from .long_async import long_steps

queue = Queue.from_url(store_url())


async def noop(context: Any, *, number: int, sent: float) -> int:
    return mark(number, sent)


async def long(context: Any) -> int:
    return await long_steps()


settings = {"queue": queue, "functions": [noop, long], "concurrency": 100}


class Saq:
    async def open(self) -> None:
        await queue.connect()

    async def close(self) -> None:
        await queue.disconnect()

    async def submit(self, number: int, sent: float) -> None:
        await queue.enqueue("noop", number=number, sent=sent)

    async def submit_long(self) -> None:
        # Without a timeout it would be ended after SAQ's ten seconds.
        await queue.enqueue("long", timeout=60, retries=option("retries", 1))

    def work(self) -> None:
        become("saq", f"{__name__}.settings")


peer = Saq()
