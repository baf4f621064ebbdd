"""The ends of attempts as a worker reports them; and those whose answers were lost.

Who calls it: the engine. A worker that hears nothing reports the same ends again, later. If the first time was
committed after all, the second one finds the attempts ended, and would be told that they were lost. So the ends that
were in doubt are remembered here, and told what became of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...jobs._rows import AttemptEnd
from ...jobs._state import JobStatus
from ._database import Database
from ._ends import complete_many, completed_of, ended_so, finish

# A worker that gives its ends up does not come for them again.
_MOST_IN_DOUBT = 10_000


class Finishes:
    """Belongs to one loop."""

    def __init__(self) -> None:
        self._in_doubt: dict[tuple[str, int], None] = {}

    async def finish(self, database: Database, ends: Sequence[AttemptEnd]) -> list[JobStatus | None]:
        if not ends:
            return []
        fences = [(end.id, end.attempt) for end in ends]
        try:
            answers = await self._finish(database, ends)
            if self._in_doubt and None in answers:
                answers = await self._reconsider(database, ends, answers)
        except BaseException:
            self.doubt(ends)
            raise
        for fence in fences:
            self._in_doubt.pop(fence, None)
        return answers

    def doubt(self, ends: Sequence[AttemptEnd]) -> None:
        """These may have been written or not."""
        self._in_doubt.update(dict.fromkeys((end.id, end.attempt) for end in ends))
        while len(self._in_doubt) > _MOST_IN_DOUBT:
            del self._in_doubt[next(iter(self._in_doubt))]

    async def _finish(self, database: Database, ends: Sequence[AttemptEnd]) -> list[JobStatus | None]:
        """Results in one statement; whatever else there is, in a transaction."""
        completed = completed_of(ends)
        done = await database.write(lambda store: complete_many(store, completed)) if completed else set()
        rest = [end for end in ends if end.id not in done]
        if not rest:
            return [JobStatus.COMPLETED] * len(ends)
        answers = dict.fromkeys(done, JobStatus.COMPLETED)
        answered = iter(await database.transact(lambda store: finish(store, rest)))
        return [answers[end.id] if end.id in answers else next(answered) for end in ends]

    async def _reconsider(
        self, database: Database, ends: Sequence[AttemptEnd], answers: list[JobStatus | None]
    ) -> list[JobStatus | None]:
        doubtful = [
            place
            for place, (end, answer) in enumerate(zip(ends, answers, strict=True))
            if answer is None and (end.id, end.attempt) in self._in_doubt
        ]
        if doubtful:
            asked = [ends[place] for place in doubtful]
            found = await database.read(lambda store: ended_so(store, asked))
            for place, status in zip(doubtful, found, strict=True):
                answers[place] = status
        return answers
