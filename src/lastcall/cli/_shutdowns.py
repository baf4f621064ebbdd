"""``lastcall shutdowns``: what processes have left behind in the store."""

from __future__ import annotations

import time

from lastcall.asgi._jobs_json import show_shutdown
from lastcall.cli._inspect import DONE
from lastcall.cli._say import write, write_json
from lastcall.cli._tables import draw_shutdowns
from lastcall.jobs import Jobs


async def show_shutdowns(jobs: Jobs, *, limit: int, as_json: bool) -> int:
    """The last reports."""
    shutdowns, now = await jobs.shutdowns(limit=limit), time.time()
    if as_json:
        write_json({"now": now, "shutdowns": [show_shutdown(past) for past in shutdowns]})
    else:
        write(draw_shutdowns(shutdowns, now))
    return DONE
