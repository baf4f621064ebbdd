"""Graphs of LangGraph for an `AgentQueue`, with what they need for a run."""

from ._langgraph import GraphAgent as GraphAgent
