"""An agent of the OpenAI Agents SDK that survives kill -9, and hands off to another one.

pip install 'lastcall[openai-agents]'
OPENAI_API_KEY=... python -P agents_openai_agents.py "Where is my order?"    (OPENAI_BASE_URL for another endpoint)
-P: the SDK's package is called agents, and so is another example in this folder.
"""

import os
import sys

from agents import Agent, function_tool

import lastcall
from lastcall.agents import AgentQueue
from lastcall.agents.openai_agents import SdkAgent
from lastcall.jobs import Jobs

jobs = Jobs("sqlite:///agents_openai_agents.db")

MODEL = os.environ.get("OPENAI_MODEL", "gpt-6-luna")


@function_tool
async def look_up(order: str) -> str:
    """Look up an order."""
    print(f"[looked up {order}]", flush=True)
    return f"{order} is on its way"


@function_tool(needs_approval=True)
async def refund(order: str) -> str:
    """Refund an order. The run asks first, and waits for `run.send("approval <id of the call>", True)`."""
    return f"{order} is refunded"


clerk = Agent(name="clerk", model=MODEL, tools=[look_up, refund])
door = Agent(name="door", model=MODEL, handoffs=[clerk])

queue = AgentQueue(SdkAgent(door, once={"refund"}), jobs=jobs)


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
