"""A program with a queue of an agent, which tests stop and kill.

`python -m tests.agents.program durable DATABASE FOLDER` works on a store; `memory FOLDER` submits five prompts to a
queue of two places and tells what became of each. Each effect of the agent is printed, and is a line in FOLDER/effects.
"""

import asyncio
import sys
from pathlib import Path

import lastcall
from lastcall import ShutdownPlan, TaskManager, current_shutdown
from lastcall.agents import AgentQueue, Turn
from lastcall.jobs import Jobs

STEPS = 6
STEP_SECONDS = 0.2


class Worker:
    """An agent with six steps, each of which writes a piece of the answer."""

    def __init__(self, folder: str) -> None:
        self._effects = Path(folder) / "effects"

    async def run(self, turn: Turn, prompt: str) -> str:
        async def act(number: int) -> str:
            with self._effects.open("a") as file:
                file.write(f"{prompt} {number}\n")
            await turn.write(f"{number}")
            print(f"did {prompt} {number}", flush=True)
            await asyncio.sleep(STEP_SECONDS)
            await turn.write(". ")
            return f"{number}"

        done = [await turn.step(act, number, name=f"step {number}") for number in range(1, STEPS + 1)]
        return " ".join(done)


async def durable(database: str, folder: str) -> None:
    async with Jobs(database) as jobs, AgentQueue(Worker(folder), jobs=jobs):
        print("ready", flush=True)
        await current_shutdown().wait()


async def memory(folder: str) -> None:
    plan = ShutdownPlan(notice=0, drain=20, cancel=5, close=5)
    async with TaskManager(plan=plan):
        queue = AgentQueue(Worker(folder), concurrency=2)
        runs = [await queue.submit(f"p{number}") for number in range(5)]
        await current_shutdown().wait()
    for run in runs:
        info = await run.info()
        print(f"{info.prompt}: {info.status} {info.reason} {await run.text()!r}", flush=True)


if __name__ == "__main__":
    lastcall.run({"durable": durable, "memory": memory}[sys.argv[1]](*sys.argv[2:]))
