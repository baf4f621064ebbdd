"""Whole ids of jobs from abbreviated ones. Ids begin with the time, so of jobs made together the ends differ."""

from __future__ import annotations

import re

from lastcall.exceptions import UnknownJob
from lastcall.jobs import Jobs
from lastcall.jobs._ids import is_id

# Through so many jobs an abbreviated id is looked for; beyond that nobody could be sure that it fits one job only.
_SEARCHED = 5000
_SEARCHED_AT_ONCE = 500
_SHORTEST = 4


class Ids:
    """The jobs are listed once, and only if that is needed."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._known: list[str] | None = None
        self._all = True

    async def whole(self, given: str) -> str:
        """The id that begins or ends so. Raises `UnknownJob`, also where several do or nobody can be sure."""
        text = given.lower()
        if is_id(text):
            return text
        if not re.fullmatch(rf"[0-9a-f-]{{{_SHORTEST},36}}", text):
            raise UnknownJob(f"{given!r} is no job id, nor the beginning or end of one")
        if self._known is None:
            self._known = await self._list()
        if not self._all:
            raise UnknownJob(f"there are more than {_SEARCHED} jobs; give the whole id instead of {given!r}")
        found = [id for id in self._known if id.startswith(text) or id.endswith(text)]
        if not found:
            raise UnknownJob(f"there is no job whose id begins or ends with {given!r}")
        if len(found) > 1:
            raise UnknownJob(f"{len(found)} jobs have ids that begin or end with {given!r}; give more of it")
        return found[0]

    async def _list(self) -> list[str]:
        known: list[str] = []
        while page := await self._jobs.find(before=known[-1] if known else None, limit=_SEARCHED_AT_ONCE):
            known += [info.id for info in page]
            if len(known) > _SEARCHED:
                self._all = False
                break
        return known
