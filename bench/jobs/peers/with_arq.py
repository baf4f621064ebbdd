"""arq on Redis."""

from typing import Any

from arq import create_pool
from arq.connections import ArqRedis, RedisSettings

from ..marks import mark
from .base import become, store_url
from .long_async import long_steps

REDIS = RedisSettings.from_dsn(store_url())


async def noop(context: Any, number: int, sent: float) -> int:
    return mark(number, sent)


async def long(context: Any) -> int:
    return await long_steps()


class WorkerSettings:
    functions = (noop, long)
    redis_settings = REDIS
    max_jobs = 100
    log_results = False


class Arq:
    pool: ArqRedis

    async def open(self) -> None:
        self.pool = await create_pool(REDIS)

    async def close(self) -> None:
        await self.pool.aclose()

    async def submit(self, number: int, sent: float) -> None:
        await self.pool.enqueue_job("noop", number, sent)

    async def submit_long(self) -> None:
        await self.pool.enqueue_job("long")

    def work(self) -> None:
        become("arq", f"{__name__}.WorkerSettings")


peer = Arq()
