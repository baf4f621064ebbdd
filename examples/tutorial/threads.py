"""To cancel a task that waits for a thread ends the waiting, not the thread: it works on after `cancelled`."""

import asyncio
import logging
import threading

import lastcall

told: list[str] = []


def charge(begun: threading.Event, go: threading.Event) -> None:
    begun.set()
    go.wait(30)
    told.append("charged")


async def until(event: threading.Event) -> None:
    async with asyncio.timeout(10):
        while not event.is_set():
            await asyncio.sleep(0.01)


async def proof() -> None:
    told.clear()
    begun, go = threading.Event(), threading.Event()
    task = asyncio.create_task(asyncio.to_thread(charge, begun, go))
    await until(begun)
    task.cancel()
    await asyncio.wait({task}, timeout=5)
    assert task.cancelled() and told == []
    go.set()
    await (
        asyncio.get_running_loop().shutdown_default_executor()
    )  # as `asyncio.run` does: it waits for the thread
    assert told == ["charged"], "the task was cancelled, the customer was charged"


# What to write instead: a thread must be asked. There is no other way to end one.
def charge_all(customers: list[str], stop: threading.Event) -> None:
    for customer in customers:
        if stop.is_set():
            return
        told.append(f"charged {customer}")
        stop.wait(0.05)


async def plain() -> None:
    told.clear()
    stop = threading.Event()
    # A thread of one's own: the loop's executor has been shut down above.
    thread = threading.Thread(target=charge_all, args=(["ann", "bob"] * 100, stop))
    thread.start()
    stop.set()
    thread.join(20)
    assert not thread.is_alive() and len(told) < 200


# With lastcall the thread is told of the stop, is waited for, and is named in the report if it will not end.
async def with_lastcall() -> None:
    told.clear()

    asking, begun, go = threading.Event(), threading.Event(), threading.Event()

    def charge_all(customers: list[str]) -> None:
        asking.set()
        shutdown = lastcall.current_shutdown()
        for customer in customers:
            if shutdown.wait_sync(0.05):
                return
            told.append(f"charged {customer}")

    plan = lastcall.ShutdownPlan(drain=1, cancel=0.1, close=1)
    async with lastcall.TaskManager(plan=plan) as manager:
        manager.run_in_thread(charge_all, ["ann", "bob"] * 100, name="polite")
        manager.run_in_thread(charge, begun, go, name="deaf")
        await until(asking)
        await until(begun)
        report = await manager.shutdown()
    assert {task.name: str(task.outcome) for task in report.tasks} == {
        "polite": "stopped",
        "deaf": "thread_left",
    }
    go.set()


async def main() -> None:
    logging.getLogger("lastcall").disabled = True
    await proof()
    await plain()
    await with_lastcall()


if __name__ == "__main__":
    asyncio.run(main())
