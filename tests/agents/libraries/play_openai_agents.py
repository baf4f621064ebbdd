"""Agents of the OpenAI Agents SDK, for the tests of crashes."""

from __future__ import annotations

from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI

from lastcall.agents._openai_agents import SdkAgent
from tests.agents.libraries.plays import Play, Stage, main

# It would send its traces to OpenAI.
set_tracing_disabled(True)


def openai_agents(stage: Stage) -> SdkAgent:
    """Its tools are `search`, `charge` (declared once) and `delete` (which somebody must approve)."""

    @function_tool
    async def search(q: str) -> str:
        """Search."""
        await stage.act(f"search {q}")
        return f"found {q}"

    @function_tool
    async def charge(amount: int) -> str:
        """Charge."""
        await stage.act(f"charge {amount}")
        return f"charged {amount}"

    @function_tool(needs_approval=True)
    async def delete(name: str) -> str:
        """Delete."""
        await stage.act(f"delete {name}")
        return f"deleted {name}"

    model = OpenAIResponsesModel(model="scripted", openai_client=_client(stage))
    agent = Agent[None](name="helper", model=model, tools=[search, charge, delete])
    return SdkAgent(agent, once={"charge"})


def handing_off(stage: Stage) -> Agent[None]:
    """A first agent, by chat completions, hands off to a second one, which has the tool."""

    @function_tool
    async def search(q: str) -> str:
        """Search."""
        await stage.act(f"search {q}")
        return f"found {q}"

    model = OpenAIChatCompletionsModel(model="scripted", openai_client=_client(stage))
    second = Agent[None](name="second", model=model, tools=[search])
    return Agent[None](name="first", model=model, handoffs=[second])


def _client(stage: Stage) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=stage.url, api_key="none", max_retries=0)


PLAYS: dict[str, Play] = {"openai_agents": openai_agents, "handing_off": handing_off}

if __name__ == "__main__":
    main(PLAYS)
