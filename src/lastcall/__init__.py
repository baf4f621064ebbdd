"""lastcall: background work that, at shutdown, finishes, hands over, or says why it could not.

General layout:

- `_core/` has everything that works inside one process, with the standard library only.
- `exceptions` has every error.
- `lastcall.asgi`, `lastcall.starlette`, `lastcall.fastapi` carry it into web servers.
- `lastcall.otel`, `lastcall.prometheus` and `lastcall.logs` tell of it.
- `lastcall.demo` and `lastcall.cli` are what the `lastcall` command runs.

This file re-exports; nothing else. ARCHITECTURE.md is the map.
"""

from ._core._group import TaskGroup as TaskGroup
from ._core._hold import Hold as Hold
from ._core._manager import TaskManager as TaskManager
from ._core._observer import TaskObserver as TaskObserver
from ._core._plan import Phase as Phase
from ._core._plan import ShutdownPlan as ShutdownPlan
from ._core._record import Stats as Stats
from ._core._record import TaskInfo as TaskInfo
from ._core._report import Outcome as Outcome
from ._core._report import PhaseReport as PhaseReport
from ._core._report import ResourceOutcome as ResourceOutcome
from ._core._report import ShutdownReport as ShutdownReport
from ._core._report import TaskOutcome as TaskOutcome
from ._core._run import run as run
from ._core._scope import Shutdown as Shutdown
from ._core._scope import current_shutdown as current_shutdown
from ._core._service import RestartPolicy as RestartPolicy
from ._core._state import CancelAnswer as CancelAnswer
from ._core._state import Kind as Kind
from ._core._state import ManagerState as ManagerState
from ._core._state import StopReason as StopReason
from ._core._state import TaskStatus as TaskStatus
from ._version import __version__ as __version__
from .exceptions import DuplicateTask as DuplicateTask
from .exceptions import GroupFull as GroupFull
from .exceptions import InstallError as InstallError
from .exceptions import InvalidPlan as InvalidPlan
from .exceptions import LastcallError as LastcallError
from .exceptions import ManagerClosed as ManagerClosed
from .exceptions import NotACoroutine as NotACoroutine
from .exceptions import NotOpen as NotOpen
from .exceptions import ServiceGaveUp as ServiceGaveUp
from .exceptions import ShuttingDown as ShuttingDown
from .exceptions import UnknownTask as UnknownTask
from .exceptions import WrongLoop as WrongLoop
