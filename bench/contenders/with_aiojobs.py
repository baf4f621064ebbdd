"""aiojobs' Scheduler, without a limit and with one of a hundred."""

from aiojobs import Scheduler

from .base import Body, Contender


class Aiojobs(Contender):
    limit: int | None = None

    def __init__(self) -> None:
        self._scheduler: Scheduler | None = None

    async def open(self) -> None:
        self._scheduler = Scheduler(limit=self.limit, close_timeout=60)

    async def batch(self, body: Body, size: int) -> None:
        assert self._scheduler is not None
        jobs = [await self._scheduler.spawn(body()) for _ in range(size)]
        for job in jobs:
            await job.wait()

    async def hold(self, body: Body, count: int) -> None:
        assert self._scheduler is not None
        for _ in range(count):
            await self._scheduler.spawn(body())

    async def stop(self) -> None:
        assert self._scheduler is not None
        await self._scheduler.close()

    async def close(self) -> None:
        assert self._scheduler is not None
        await self._scheduler.close()


class AiojobsLimited(Aiojobs):
    limit = 100
