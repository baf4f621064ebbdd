"""What a worker process is told of its place, by a variable of its environment."""

from __future__ import annotations

import json
import os
from typing import NamedTuple

VARIABLE = "LASTCALL_FLEET"


class Place(NamedTuple):
    """`number`: who it is in the ledger. `release`: of the code. `far`: as on another machine, where nobody can see
    whether this process is gone, so that its lease alone says so. `door`: how it gets to the store, for the ledger."""

    url: str
    ledger: str
    number: int
    release: int
    far: bool
    door: str
    lease_seconds: float

    def environment(self) -> dict[str, str]:
        return {VARIABLE: json.dumps(self._asdict())}


def read_place() -> Place:
    """Of this process."""
    return Place(**json.loads(os.environ[VARIABLE]))
