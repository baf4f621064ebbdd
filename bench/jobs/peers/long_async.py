"""The body of the long job for libraries that run coroutines."""

import asyncio
import time

from ..marks import note
from .base import start_step, step_count, step_seconds, told


async def long_steps() -> int:
    began_at = time.monotonic()
    try:
        for number in range(step_count()):
            start_step(number)
            await asyncio.sleep(step_seconds())
    except BaseException as error:
        told(began_at, error)
        raise
    note("done", step_count())
    return step_count()
