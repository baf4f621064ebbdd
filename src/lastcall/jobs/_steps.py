"""Which step is which: the memory of one attempt. Pure; `_attempt` acts on it.

Theory of operation. A step's identity is its name and how many times that name has been asked for before. Without
`name=` the name is the function's, with the arguments: `index_file("a.md")`. So steps that run side by side keep their
identity whatever order they come in, as long as their names differ; two of the same name at once, which nothing can
tell apart, are refused. (Two calls of one function with equal arguments may change places; nobody can see that.)

Code that was changed shows itself when it asks for a step that is not recorded, while a recorded one has not been
asked for. That is certain only for steps called by the job's own task: they come one after the other. Those of tasks
that the job started come when they come, and are not held to an order. Nor are those behind a step that had failed:
called again it may end otherwise, and lead elsewhere. So failures are recorded, too.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Any

from ..exceptions import BadDeclaration, StepCollision, StepMismatch
from ._codec import fingerprint_text
from ._function import name_of
from ._rows import StepRow
from ._state import StepStatus

# The keys of waits begin with it; the engine writes them, and no order is known of them.
WAIT_MARK = "~"

_RESERVED = re.compile(rf"^{WAIT_MARK}| #\d+$")

_SHOWN = 60


class Steps:
    def __init__(self, job: str, recorded: Sequence[StepRow]) -> None:
        self._job = job
        self._recorded = {row.key: row for row in recorded}
        # In order, those that the job's own task will ask for again if the code is still the same.
        self._expected = {
            row.key: None
            for row in recorded
            if row.main and row.status is StepStatus.COMPLETED and not row.key.startswith(WAIT_MARK)
        }
        self._asked: dict[str, int] = {}
        # Those that run now, and since when: nothing of a step of policy `replay` is written before its end.
        self.running: dict[str, float] = {}
        self._in_flight: set[str] = set()

    def key_of(self, name: str | None, fn: Callable[..., Any], args: Sequence[Any]) -> str:
        """The identity of the step that is asked for now. Raises `StepCollision`, `BadDeclaration`."""
        if name is None:
            return self._numbered(_default_name(fn, args))
        if _RESERVED.search(name) or not name or not name.isprintable() or len(name) > 200:
            raise BadDeclaration(
                f"job {self._job}: a step's name is a printable text of 1 to 200 characters that neither begins with "
                f"{WAIT_MARK!r} nor ends with a number like '#2', not {name!r}"
            )
        if name in self._in_flight:
            raise StepCollision(
                f"job {self._job}: a step {name!r} is running, and another of the same name was asked for; after a "
                "restart nothing could tell them apart. Give each its own name="
            )
        return self._numbered(name)

    def start_key(self, name: str | None, task: str, args: str) -> str:
        """The identity of the start of a child, whose arguments are this JSON object."""
        if name is not None:
            return self.key_of(name, _nothing, ())
        return self._numbered(f"start {task}({_shown(args[1:-1].encode())})")

    def wait_key(self, what: str) -> str:
        """The identity of a wait. Its count stands in front, because the name of a message may end with a number."""
        nth = self._asked[WAIT_MARK + what] = self._asked.get(WAIT_MARK + what, 0) + 1
        return f"{WAIT_MARK}{what}" if nth == 1 else f"{WAIT_MARK}#{nth} {what}"

    def _numbered(self, name: str) -> str:
        nth = self._asked[name] = self._asked.get(name, 0) + 1
        return name if nth == 1 else f"{name} #{nth}"

    def recorded(self, key: str, *, main: bool) -> StepRow | None:
        """What is recorded of this step. Raises `StepMismatch` if nothing is, where something else should have come."""
        row = self._recorded.get(key)
        if row is not None and row.status is StepStatus.COMPLETED:
            self._expected.pop(key, None)
            return row
        if row is not None and (row.main or row.status is StepStatus.FAILED):
            self._expected.clear()
        elif main and self._expected:
            expected = next(iter(self._expected))
            raise StepMismatch(
                f"job {self._job}: the code asks for step {key!r}, but at this place step {expected!r} is recorded, "
                "which it has not asked for. Was the function changed? Put that step back, or declare the changed "
                "function with another version=; if only the step's arguments differ from run to run, give it a name="
            )
        return row

    def begin(self, name: str | None) -> None:
        """A named step runs from now on."""
        if name is not None:
            self._in_flight.add(name)

    def end(self, name: str | None) -> None:
        if name is not None:
            self._in_flight.discard(name)

    def forgotten(self) -> list[str]:
        """Recorded steps that the code did not ask for again: when it has returned, it was changed."""
        return list(self._expected)


def _default_name(fn: Callable[..., Any], args: Sequence[Any]) -> str:
    while isinstance(fn, functools.partial):
        args = (*fn.args, *fn.keywords.items(), *args)
        fn = fn.func
    name = name_of(fn)
    if "<lambda>" in name:
        raise BadDeclaration("a step made of a lambda needs a name=, because all lambdas are called alike")
    if not args:
        return name
    return f"{name}({_shown(fingerprint_text(args)[1:-1])})"


def _shown(written: bytes) -> str:
    """Arguments as a part of a name: all of them or a hash, never a beginning that others may share."""
    shown = written.decode()
    if len(shown) > _SHOWN or not shown.isprintable():
        return hashlib.blake2b(written, digest_size=12).hexdigest()
    return shown


def _nothing() -> None: ...
