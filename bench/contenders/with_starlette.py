"""Starlette's BackgroundTasks: one after another in the caller's task, so no task is made at all."""

from starlette.background import BackgroundTasks

from .base import Body, Contender


class StarletteBackgroundTasks(Contender):
    async def batch(self, body: Body, size: int) -> None:
        tasks = BackgroundTasks()
        for _ in range(size):
            tasks.add_task(body)
        await tasks()
