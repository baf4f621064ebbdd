"""A background response of OpenAI, for the tests of crashes."""

from openai import AsyncOpenAI

from lastcall.agents._openai import BackgroundResponses
from tests.agents.libraries.plays import Play, Stage, main


def openai(stage: Stage) -> BackgroundResponses:
    client = AsyncOpenAI(base_url=stage.url, api_key="none", max_retries=0)
    return BackgroundResponses(client, model="scripted")


PLAYS: dict[str, Play] = {"openai": openai}

if __name__ == "__main__":
    main(PLAYS)
