"""A program without a web server: background work, and a stop that loses none of it.

python quickstart_tasks.py, then press Ctrl-C: no new letter is taken, those on their way are delivered.
"""

import asyncio
import sys

import lastcall


async def deliver(letter: int) -> None:
    print(f"letter {letter}: on its way", flush=True)
    await asyncio.sleep(1)
    print(f"letter {letter}: delivered", flush=True)


async def empty_postbox(manager: lastcall.TaskManager) -> None:
    shutdown = lastcall.current_shutdown()
    letter = 0
    while not shutdown.requested:
        letter += 1
        manager.create_task(deliver(letter), name=f"letter {letter}")
        await shutdown.sleep(0.4)  # wakes at once when the stop comes
    print("the postbox is closed", flush=True)


async def main() -> None:
    async with lastcall.TaskManager(plan=lastcall.ShutdownPlan(drain=5)) as manager:
        await manager.create_task(empty_postbox(manager), name="postbox")
    print(manager.report, file=sys.stderr)


if __name__ == "__main__":
    lastcall.run(main())
