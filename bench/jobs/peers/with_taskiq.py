"""taskiq on a Redis stream, results in Redis."""

from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from ..marks import mark
from .base import become, option, store_url
from .long_async import long_steps

results: RedisAsyncResultBackend[int] = RedisAsyncResultBackend(store_url(), result_ex_time=600)
broker = RedisStreamBroker(store_url(), idle_timeout=option("idle", 600) * 1000).with_result_backend(results)


@broker.task
async def noop(number: int, sent: float) -> int:
    return mark(number, sent)


@broker.task
async def long() -> int:
    return await long_steps()


class Taskiq:
    async def open(self) -> None:
        await broker.startup()  # makes the consumer group; what is sent before it exists is never read

    async def close(self) -> None:
        await broker.shutdown()

    async def submit(self, number: int, sent: float) -> None:
        await noop.kiq(number, sent)

    async def submit_long(self) -> None:
        await long.kiq()

    def work(self) -> None:
        limit = ["--wait-tasks-timeout", str(option("wait"))] if option("wait") else []
        become(
            *("taskiq", "worker", f"{__name__}:broker", "--workers", "1", "--max-async-tasks", "100"),
            *("--log-level", "WARNING", *limit),
        )


peer = Taskiq()
