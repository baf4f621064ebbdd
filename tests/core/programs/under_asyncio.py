"""The same stubborn work under plain `asyncio.run`: the manager alone must see to it that the process ends."""

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import Any

from tests.core.programs import under_run

PROGRAMS = ("stubborn_task", "stuck_thread", "endless_finally", "hanging_resource", "drains")


async def told(program: Callable[[], Any]) -> None:
    """Nobody hears signals here, so the shutdown is begun from inside, once the work runs."""
    original = under_run.TaskManager

    class Telling(original):  # type: ignore[misc, valid-type]
        async def __aenter__(self) -> Any:
            manager = await super().__aenter__()
            asyncio.get_running_loop().call_later(0.2, self.begin_shutdown)
            return manager

    under_run.TaskManager = Telling  # type: ignore[misc]
    await program()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    asyncio.run(told(getattr(under_run, sys.argv[1])))
    print("asyncio.run returned", flush=True)
