"""A model of OpenAI as an agent for an `AgentQueue`, which answers with background responses."""

from ._openai import BackgroundResponses as BackgroundResponses
