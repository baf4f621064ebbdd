"""Agents of the OpenAI Agents SDK for an `AgentQueue`, with what they need for a run."""

from ._openai_agents import SdkAgent as SdkAgent
