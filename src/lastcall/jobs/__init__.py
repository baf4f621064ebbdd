"""Durable jobs: work that survives the process.

General layout:

- `_state`, `_rows`, `_engine` are the words, the values and the verbs of the port to where jobs are kept; `_policy`
  the decisions that engines take inside their transactions.
- `_settings`, `_function`, `_codec`, `_declaration`, `_job`, `_jobs` are what users hold: tasks, handles, `Jobs`.
  `_client` is what these share: the open engine and the news.
- `_observer`: who watches from beside.
- `_shutdowns`: the reports that processes leave behind.
- `_tails`, `_log`, `_info` are a job as others see it, while it runs and afterwards.
- `_steps`, `_attempt`, `_stepping`, `_outgoing`, `_told`, `_stream`, `_context`, `_executor`, `_process` run one
  attempt.
- `_fetcher`, `_lease`, `_outbox`, `_scheduler`, `_pruner`, `_worker` are a worker and its services.

Engines live in `lastcall.engines`, tools for tests in `lastcall.testing`.
"""

from ._context import Context as Context
from ._context import current_context as current_context
from ._declaration import Call as Call
from ._declaration import Task as Task
from ._engine import Engine as Engine
from ._engine import SupportsTransactions as SupportsTransactions
from ._info import JobInfo as JobInfo
from ._job import Decision as Decision
from ._job import Event as Event
from ._job import Job as Job
from ._job import RunningStep as RunningStep
from ._job import StepInfo as StepInfo
from ._jobs import Jobs as Jobs
from ._jobs import open_engine as open_engine
from ._log import JobLog as JobLog
from ._observer import AttemptResult as AttemptResult
from ._observer import JobObserver as JobObserver
from ._process import ProcessDied as ProcessDied
from ._rows import AttemptRow as AttemptRow
from ._rows import Claimed as Claimed
from ._rows import NewJob as NewJob
from ._rows import Overview as Overview
from ._rows import ScheduleRow as ScheduleRow
from ._rows import WorkerRow as WorkerRow
from ._settings import Backoff as Backoff
from ._settings import Rate as Rate
from ._shutdowns import PastShutdown as PastShutdown
from ._state import AttemptOutcome as AttemptOutcome
from ._state import CancelOutcome as CancelOutcome
from ._state import JobStatus as JobStatus
from ._state import StepPolicy as StepPolicy
from ._state import StepStatus as StepStatus
from ._stepping import CurrentStep as CurrentStep
from ._stepping import current_step as current_step
from ._stream import OutStream as OutStream
from ._timetable import Schedule as Schedule
from ._worker import Worker as Worker
