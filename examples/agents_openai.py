"""A long answer of OpenAI that is bought once: kill -9 this in the middle, run it again, and it reads on.

pip install 'lastcall[openai]'
OPENAI_API_KEY=... python agents_openai.py "Compare ..."    (OPENAI_BASE_URL for another endpoint)
"""

import os
import sys

from openai import AsyncOpenAI

import lastcall
from lastcall.agents import AgentQueue
from lastcall.agents.openai import BackgroundResponses
from lastcall.jobs import Jobs

jobs = Jobs("sqlite:///agents_openai.db")

agent = BackgroundResponses(
    AsyncOpenAI(),
    model=os.environ.get("OPENAI_MODEL", "gpt-6-sol"),
    instructions="Answer at length.",
    tools=[{"type": "web_search"}],
)
queue = AgentQueue(agent, jobs=jobs)


async def main(prompt: str) -> None:
    async with queue:
        run = await queue.submit(prompt, key=prompt)
        async for event in run.events():
            if event.type == "stream.text":
                print(event.data["text"], end="", flush=True)
        print(f"\n[{await run.status()}]", flush=True)


if __name__ == "__main__":
    lastcall.run(main(sys.argv[1]))
