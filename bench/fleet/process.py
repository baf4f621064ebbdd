"""A worker process: the command `lastcall worker`, in a process that was forked instead of started anew.

A fleet that is killed all day would spend the day with importing. The command is the real one, to its last line.
"""

from __future__ import annotations

import os
import sys

# Imported here, before the fork, and used in the child.
import lastcall.cli._app
import lastcall.cli._worker
import lastcall.engines.postgres
import lastcall.engines.sqlite  # noqa: F401
from lastcall.cli import main

from . import work  # noqa: F401


def run(environment: dict[str, str], arguments: list[str]) -> None:
    """In the child. Raises SystemExit with what the command exits with."""
    os.environ.update(environment)
    sys.argv = ["lastcall", *arguments]
    main()
