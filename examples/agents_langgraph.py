"""A graph of LangGraph that survives kill -9, and is handed over by a deploy between two of its supersteps.

pip install 'lastcall[langgraph]' openai
OPENAI_API_KEY=... python agents_langgraph.py "tides"    (OPENAI_BASE_URL for another endpoint)
"""

import os
import sys
from typing import TypedDict

from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from openai import AsyncOpenAI

import lastcall
from lastcall.agents import AgentQueue
from lastcall.agents.langgraph import GraphAgent
from lastcall.jobs import Jobs

jobs = Jobs("sqlite:///agents_langgraph.db")


class State(TypedDict):
    topic: str
    notes: str
    text: str


async def search(state: State) -> dict[str, str]:
    print(f"[searched {state['topic']}]", flush=True)
    return {"notes": f"notes on {state['topic']}"}


async def write(state: State) -> dict[str, str]:
    writer = get_stream_writer()  # what a node writes here is the streamed answer
    ask = f"Write on {state['topic']}, from {state['notes']}."
    pieces = []
    async with AsyncOpenAI() as client:
        stream = await client.chat.completions.create(
            model=os.environ.get("OPENAI_MODEL", "gpt-6-luna"),
            messages=[{"role": "user", "content": ask}],
            stream=True,
        )
        async with stream:
            async for chunk in stream:
                pieces.append(chunk.choices[0].delta.content or "")
                writer(pieces[-1])
    return {"text": "".join(pieces)}


graph = StateGraph(State)
graph.add_node("search", search)
graph.add_node("write", write)
graph.add_edge(START, "search")
graph.add_edge("search", "write")
graph.add_edge("write", END)

agent = GraphAgent(
    graph.compile(),
    make_input=lambda prompt, history: {"topic": prompt},
    read_output=lambda state: state["text"],
)
queue = AgentQueue(agent, jobs=jobs)


async def main(topic: str) -> None:
    async with queue:
        run = await queue.submit(topic, key=topic)
        async for event in run.events():
            if event.type == "stream.text":
                print(event.data["text"], end="", flush=True)
        print(f"\n[{await run.status()}]", flush=True)


if __name__ == "__main__":
    lastcall.run(main(sys.argv[1]))
