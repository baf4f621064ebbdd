"""PREFIX/shutdowns: the reports of the last shutdowns of all processes on the store, of those that are gone too.

Who calls it: `_face`, where there are jobs. Beside PREFIX/shutdown, which tells of this process alone and asks no
store: this one cannot answer while the store is closed or away.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from . import _examples as examples
from . import _models as models
from ._jobs_face import JobsFace
from ._jobs_json import show_shutdown
from ._pages import Answer, Param, Request, Route, Says
from ._redact import Redactor

if TYPE_CHECKING:
    from ..jobs import PastShutdown

_LIMIT, _MAX_LIMIT = 20, 50


class ShutdownsFace:
    """The page."""

    def __init__(self, jobs: JobsFace, redactor: Redactor) -> None:
        self._jobs = jobs
        self._redactor = redactor

    def routes(self) -> list[Route]:
        limit = Param("limit", f"how many; {_LIMIT} if it is not given", least=1, most=_MAX_LIMIT, example=10)
        return [
            Route(
                "GET",
                "shutdowns",
                self._list,
                "The reports of the last shutdowns of all processes on the store, the newest first.",
                {200: Says("the reports", models.PastShutdowns, examples.PAST_SHUTDOWNS)},
                query=(limit,),
                refuses=(503,),
            ),
        ]

    async def _list(self, request: Request) -> Answer:
        with self._jobs.store() as jobs:
            shutdowns = await jobs.shutdowns(limit=request.number("limit", _LIMIT))
        return Answer(200, {"now": time.time(), "shutdowns": [self._show(past) for past in shutdowns]})

    def _show(self, past: PastShutdown) -> dict[str, Any]:
        return show_shutdown(past._replace(report=self._redactor.report(past.report)))
