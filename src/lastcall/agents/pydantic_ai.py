"""Agents of pydantic-ai for an `AgentQueue`, with what they need for a run."""

from ._pydantic_ai import PydanticAgent as PydanticAgent
