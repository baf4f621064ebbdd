"""Huey: threads; the job leaves the queue when a thread takes it. Results are kept."""

from huey import RedisHuey, SqliteHuey

from ..marks import mark
from .base import become, database_path, long_steps, option, store_url

if option("storage") == "sqlite":
    huey = SqliteHuey(filename=str(database_path()))
else:
    huey = RedisHuey(url=store_url())

noop = huey.task()(mark)
long = huey.task()(long_steps)


class Huey:
    async def open(self) -> None:
        return

    async def close(self) -> None:
        return

    async def submit(self, number: int, sent: float) -> None:
        noop(number, sent)

    async def submit_long(self) -> None:
        long()

    def work(self) -> None:
        become(
            "huey_consumer",
            f"{__name__}.huey",
            "-w",
            "8",
            "-k",
            "thread",
            "-g",
            option("graceful", "INT"),
            "-q",
        )


peer = Huey()
