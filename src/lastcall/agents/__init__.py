"""Agents behind a queue: in memory on a `TaskManager`, or durable as jobs, with the same face.

General layout: `_turn` is what a run is given and what an adapter is asked for.
"""

from ._turn import AgentAdapter, Turn

__all__ = ["AgentAdapter", "Turn"]
