"""An agent behind a queue: press Ctrl-C in the middle, or kill -9 it, run it again, and it goes on where it was.

python examples/quickstart_agents.py "tides"
Without `jobs=jobs` the same queue lives in memory: it finishes what runs, and says what became of what waited.
"""

import asyncio
import sys

import lastcall
from lastcall import current_shutdown
from lastcall.agents import AgentQueue, Budget, Turn
from lastcall.jobs import Jobs

jobs = Jobs("sqlite:///agents.db")

CHAPTERS = ["what is known", "what is disputed", "what to read"]


async def search(topic: str, chapter: str) -> str:
    """A tool. Its answer is remembered: for this run it is never called again."""
    await asyncio.sleep(0.3)
    print(f"[searched: {chapter}]", flush=True)
    return f"notes on {chapter} of {topic}"


async def agent(turn: Turn, topic: str) -> str:
    async def write(chapter: str, notes: str) -> str:
        """Stands in for a call of a model. Its text streams to whoever reads the run, as it comes."""
        words = f"On {topic}, {chapter}: so say the {notes}.".split(" ")
        for word in words:
            await turn.write(word + " ")
            await asyncio.sleep(0.03)
        await turn.write("\n")
        return " ".join(words)

    chapters = []
    for chapter in CHAPTERS:
        notes = await turn.step(search, topic, chapter, name=f"search {chapter}")
        turn.spend(tool_calls=1)
        chapters.append(await turn.step(write, chapter, notes, name=f"write {chapter}"))
    return "\n".join(chapters)


queue = AgentQueue(agent, jobs=jobs, concurrency=4, budget=Budget(seconds=600, tool_calls=20))


async def main(topic: str) -> None:
    async with queue:
        # The same key is the same run: started again, the program finds the one that it had begun.
        run = await queue.submit(topic, user="ann", key=f"on {topic}")
        async for event in run.events():
            if event.type == "stream.text":
                print(event.data["text"], end="", flush=True)
            elif (
                event.type == "step.reset"
            ):  # it was cut off in the middle of this step, whose text comes once more
                print(f"\n[again: {event.data['step']}]", flush=True)
            elif event.type == "status" and event.data["status"] == "queued" and current_shutdown().requested:
                print("\n[handed over; run me again]", flush=True)
                return
        print(f"[{await run.status()}: {len(await run.result())} characters]", flush=True)


if __name__ == "__main__":
    lastcall.run(main(sys.argv[1] if len(sys.argv) > 1 else "tides"))
