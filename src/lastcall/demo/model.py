"""The answerer with a language model: an agent of pydantic-ai with the two tools. The only file here that imports it.

Any server that speaks OpenAI's protocol will do; which one, the environment says.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from lastcall.demo.passages import Library

_INSTRUCTIONS = """You answer questions about a folder of files. Find out with the tools: search for words that the
answer should contain, then read around what was found. Answer in a few sentences, from what you have read and nothing
else, and name the files and lines. If the files do not say it, say so."""

_RESULTS_MAX = 10


def build_agent(
    library: Library, *, model: str, base_url: str | None, api_key: str | None
) -> Agent[None, str]:
    """Make the agent. In a durable queue each of its requests and tool calls is a step.

    >>> AgentQueue(build_agent(library, model="small", base_url="http://localhost:8080/v1", api_key=None), jobs=jobs)
    """
    provider = OpenAIProvider(base_url=base_url, api_key=api_key or "none")
    agent = Agent(OpenAIChatModel(model, provider=provider), name="librarian", instructions=_INSTRUCTIONS)

    @agent.tool_plain
    def search(words: str) -> list[dict[str, Any]]:
        """Search all files for these words. Gives the best passages, each with its file and line."""
        return [dataclasses.asdict(passage) for passage in library.search(words, _RESULTS_MAX)]

    @agent.tool_plain
    def read(file: str, line: int = 1, lines: int = 40) -> dict[str, Any]:
        """Read some lines of a file, from `line` on."""
        passage = library.read(file, line, lines)
        return {"error": f"there is no file {file}"} if passage is None else dataclasses.asdict(passage)

    return agent
