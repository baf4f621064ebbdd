"""A background response of OpenAI, for the tests of crashes."""

from openai import AsyncOpenAI

from lastcall.agents import AgentAdapter
from lastcall.agents._openai import BackgroundResponses, adapt
from tests.agents.libraries.plays import Play, Stage, main


def openai(stage: Stage) -> AgentAdapter:
    client = AsyncOpenAI(base_url=stage.url, api_key="none", max_retries=0)
    adapter = adapt(BackgroundResponses(client, model="scripted"))
    assert adapter is not None
    return adapter


PLAYS: dict[str, Play] = {"openai": openai}

if __name__ == "__main__":
    main(PLAYS)
