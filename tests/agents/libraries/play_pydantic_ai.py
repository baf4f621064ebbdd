"""Agents of pydantic-ai, for the tests of crashes."""

from __future__ import annotations

from typing import Any

from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models import Model
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel, OpenAIResponsesModelSettings
from pydantic_ai.providers.openai import OpenAIProvider

from lastcall.agents._pydantic_ai import PydanticAgent
from tests.agents.libraries.plays import Play, Stage, main


def provider_of(stage: Stage) -> OpenAIProvider:
    return OpenAIProvider(openai_client=AsyncOpenAI(base_url=stage.url, api_key="none", max_retries=0))


def agent_of(stage: Stage, model: Model | None = None) -> Agent[None, Any]:
    """An agent whose tools are `search`, `charge` (declared once) and `delete` (which somebody must approve)."""
    agent = Agent(model or OpenAIChatModel("scripted", provider=provider_of(stage)), name="helper")

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


def pydantic_ai(stage: Stage) -> Agent[None, Any]:
    return agent_of(stage)


def patient(stage: Stage) -> Agent[None, Any]:
    """Its client tries again by itself, as clients do."""
    client = AsyncOpenAI(base_url=stage.url, api_key="none", max_retries=2)
    return agent_of(stage, OpenAIChatModel("scripted", provider=OpenAIProvider(openai_client=client)))


def continuing(stage: Stage) -> PydanticAgent:
    """Answers that were cut off are gone on with."""
    return PydanticAgent(agent_of(stage), on_crash="continue")


class OftenAsked(OpenAIResponsesModel):
    """Looks more often at what the provider works on."""

    def continuation_delay(self, response: ModelResponse) -> float | None:
        return None if super().continuation_delay(response) is None else 0.1


def in_background(stage: Stage) -> PydanticAgent:
    """Responses that the provider works on by itself."""
    settings = OpenAIResponsesModelSettings(openai_background=True)
    model = OftenAsked("scripted", provider=provider_of(stage), settings=settings)
    return PydanticAgent(agent_of(stage, model), stream=False)


PLAYS: dict[str, Play] = {
    "pydantic_ai": pydantic_ai,
    "continuing": continuing,
    "in_background": in_background,
}

if __name__ == "__main__":
    main(PLAYS)
