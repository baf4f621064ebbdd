"""The tutorial's agent queue: results are thrown away, a user's cancel is called a time-out, equal ids lose a run."""

import asyncio
from typing import Any

import lastcall
from lastcall.agents import AgentQueue


async def agent(prompt: str) -> str:
    await asyncio.sleep(60 if prompt == "long" else 0)
    return f"about {prompt}"


class Queue:
    """The tutorial's, shortened: what it keeps of a run, and what a cancelled one says."""

    def __init__(self) -> None:
        self.tasks: dict[str, asyncio.Task[dict[str, Any]]] = {}

    def submit(self, id: str, prompt: str) -> None:
        self.tasks[id] = asyncio.create_task(self._run(id, prompt))

    async def _run(self, id: str, prompt: str) -> dict[str, Any]:
        try:
            return {"status": "completed", "result": await agent(prompt)}
        except asyncio.CancelledError:
            return {"status": "cancelled", "reason": "timeout"}
        finally:
            self.tasks.pop(id, None)


async def proof() -> None:
    queue = Queue()
    queue.submit("a", "tea")
    await asyncio.wait(queue.tasks.values(), timeout=5)
    assert queue.tasks == {}, "the run has completed: its result and its status are gone with it"

    queue.submit("b", "long")
    run = queue.tasks["b"]
    await asyncio.sleep(0)
    run.cancel()  # by its user
    await asyncio.wait({run}, timeout=5)
    assert not run.cancelled(), "a cancelled run is not cancelled"
    assert run.result()["reason"] == "timeout", "and the user's wish is called a time-out"

    queue.submit("c", "tea")
    first = queue.tasks["c"]
    queue.submit("c", "long")
    second = queue.tasks["c"]
    await asyncio.wait({first}, timeout=5)
    assert not second.done() and queue.tasks == {}, "nobody knows the second run any more"
    second.cancel()
    await asyncio.wait({second}, timeout=5)


async def with_lastcall() -> None:
    async with lastcall.TaskManager() as manager, AgentQueue(agent, manager=manager, concurrency=4) as queue:
        run = await queue.submit("tea", key="a")
        assert (await queue.submit("tea", key="a")).id == run.id  # the same key is the same run
        assert await run.result() == "about tea"
        assert await run.status() == "completed"
        other = await queue.submit("long")
        await other.cancel()
        info = await other.wait(timeout=5)
        assert (info.status, info.reason) == ("cancelled", "user")


async def main() -> None:
    await proof()
    await with_lastcall()


if __name__ == "__main__":
    asyncio.run(main())
