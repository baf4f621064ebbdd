"""What `doctor` finds. Codes are stable: scripts may name them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import NamedTuple

from lastcall import ShutdownPlan
from lastcall.cli.doctor._facts import Facts
from lastcall.cli.doctor._server_words import Server


class Severity(StrEnum):
    """`error`: it will go wrong. `warning`: it may. `note`: worth knowing."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Finding(NamedTuple):
    """`what`: what happens, and why, with its figures. `change`: what helps. `figure`: the number that is wrong."""

    code: str
    severity: Severity
    subject: str
    what: str
    change: str
    figure: float | None = None


Check = Callable[[Facts], Iterator[Finding]]


ERROR, WARNING, NOTE = Severity


def served(facts: Facts) -> Iterator[tuple[Server, ShutdownPlan]]:
    """The servers, each with the plan of what it runs."""
    for server, _ in facts.servers:
        plan = server.plan if not server.serves else facts.app.plan
        if plan is not None:
            yield server, plan
