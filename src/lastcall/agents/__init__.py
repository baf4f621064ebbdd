"""Agents behind a queue: in memory on a `TaskManager`, or durable as jobs, with the same face.

General layout:

- `_turn` is what a run is given and what an adapter is asked for. `_adapters` is the table of adapters; each library of
  agents has a file of its own.
- `_budget`, `_limits` and `_places` decide: what a run may use, who is next, who may queue. All of it is pure.
- `_run` is the handle, `_queue` the queue, `_conversation` the conversation, whose text `_transcript` keeps.
- `_memory` (with `_log`, `_memory_turn`) and `_durable` (with `_job_turn`) are the two places where runs live.
"""

from ..exceptions import BudgetExceeded as BudgetExceeded
from ._budget import Budget as Budget
from ._conversation import Conversation as Conversation
from ._conversation import TurnInfo as TurnInfo
from ._queue import AgentQueue as AgentQueue
from ._run import Run as Run
from ._run import RunInfo as RunInfo
from ._run import RunStatus as RunStatus
from ._turn import AgentAdapter as AgentAdapter
from ._turn import Turn as Turn
