"""PREFIX/overview: how many jobs there are in each queue, the workers with their leases, the schedules.

Who calls it: `_face`, where there are jobs. For screens that are looked at all the time: its cost does not grow with
the number of jobs.
"""

from __future__ import annotations

from ._jobs_face import JobsFace
from ._jobs_json import show_overview
from ._pages import Answer, Pages
from ._types import Receive, Scope


class OverviewFace:
    """The page.

    GET overview
    """

    def __init__(self, jobs: JobsFace) -> None:
        self._jobs = jobs

    def pages(self) -> Pages:
        return {"GET": self._show}

    async def _show(self, scope: Scope, receive: Receive) -> Answer:
        with self._jobs._store() as jobs:
            return Answer(200, show_overview(await jobs.overview()))
