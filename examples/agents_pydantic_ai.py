"""A pydantic-ai agent that survives kill -9: what its model has answered and its tools have done is not done again.

pip install 'lastcall[pydantic-ai]' 'pydantic-ai-slim[openai]'
OPENAI_API_KEY=... python agents_pydantic_ai.py "What do the minutes say?"    (OPENAI_BASE_URL for another endpoint)
"""

import os
import sys

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel

import lastcall
from lastcall.agents import AgentQueue
from lastcall.jobs import Jobs

jobs = Jobs("sqlite:///agents_pydantic_ai.db")

agent = Agent(OpenAIChatModel(os.environ.get("OPENAI_MODEL", "gpt-6-luna")), name="clerk")


@agent.tool_plain
async def read(name: str) -> str:
    """A tool like any other. Its answer is remembered."""
    print(f"[read {name}]", flush=True)
    return f"{name}: the bar stops taking orders"


@agent.tool_plain(metadata={"lastcall": {"policy": "once"}})
async def send(to: str, text: str) -> str:
    """If the process dies in the middle of it, it is not called again: the run waits for somebody who knows."""
    return f"sent to {to}"


@agent.tool_plain(requires_approval=True)
async def delete(name: str) -> str:
    """Somebody must say yes first: `await run.send("approval <id of the call>", True)`. Meanwhile no worker waits."""
    return f"{name} is deleted"


queue = AgentQueue(agent, jobs=jobs)


async def main(prompt: str) -> None:
    async with queue:
        run = await queue.submit(prompt, key=prompt)
        async for event in run.events():
            if event.type == "stream.text":
                print(event.data["text"], end="", flush=True)
            elif event.type == "step.reset":
                print(f"\n[again: {event.data['step']}]", flush=True)
        print(f"\n[{await run.status()}]", flush=True)


if __name__ == "__main__":
    lastcall.run(main(sys.argv[1]))
