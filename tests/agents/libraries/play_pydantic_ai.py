"""Agents of pydantic-ai, for the tests of crashes."""

from __future__ import annotations

from typing import Any

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from lastcall.agents import AgentAdapter
from lastcall.agents._pydantic_ai import adapt
from tests.agents.libraries.plays import Play, Stage, main


def agent_of(stage: Stage) -> Agent[None, Any]:
    """An agent whose tools are `search`, `charge` (declared once) and `delete` (which somebody must approve)."""
    model = OpenAIChatModel("scripted", provider=OpenAIProvider(base_url=stage.url, api_key="none"))
    agent = Agent(model, name="helper")

    @agent.tool_plain
    async def search(q: str) -> str:
        await stage.act(f"search {q}")
        return f"found {q}"

    @agent.tool_plain(metadata={"lastcall": {"policy": "once"}})
    async def charge(amount: int) -> str:
        await stage.act(f"charge {amount}")
        return f"charged {amount}"

    @agent.tool_plain(requires_approval=True)
    async def delete(name: str) -> str:
        await stage.act(f"delete {name}")
        return f"deleted {name}"

    return agent


def pydantic_ai(stage: Stage) -> AgentAdapter:
    adapter = adapt(agent_of(stage))
    assert adapter is not None
    return adapter


PLAYS: dict[str, Play] = {"pydantic_ai": pydantic_ai}

if __name__ == "__main__":
    main(PLAYS)
