"""What the model says an engine's store may be now, given all that was asked and answered.

Verbs that are called at the same time may come to the store in any order, and not all of what they did can be seen at
once. So every *world* is kept, every state of the model, that explains what was seen so far; when none is left, the
engine is wrong.
"""

import asyncio
import itertools
import pickle
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from lastcall.jobs._engine import read_log
from lastcall.jobs._rows import JobQuery
from lastcall.testing import VirtualClock
from tests.engines.model import ModelEngine, ModelStore

Ask = Callable[[Any], Coroutine[Any, Any, object]]


class Worlds:
    """The possible worlds; at first an empty store."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._worlds = [ModelStore()]

    @property
    def any(self) -> ModelStore:
        """One of them: they look alike."""
        return self._worlds[0]

    async def explain(self, ask: Ask, answer: object) -> None:
        """Keep the worlds in which this is the answer."""
        expected = [await ask(ModelEngine(self._clock, world)) for world in self._worlds]
        self._keep(expected, answer)
        assert self._worlds, f"SQLite: {answer}\nmodel:  {expected[0]}"

    async def explain_all(self, asks: Sequence[Ask], answers: Sequence[object]) -> None:
        """Keep the worlds that some order of what was asked at the same time leads to with these answers."""
        after: dict[str, ModelStore] = {}
        orders = list(itertools.permutations(range(len(asks))))
        for before, order in itertools.product(map(pickle.dumps, self._worlds), orders):
            world: ModelStore = pickle.loads(before)
            model = ModelEngine(self._clock, world)
            for n in order:
                if await asks[n](model) != answers[n]:
                    break
            else:
                after.setdefault(repr(vars(world)), world)
        assert after, f"no order explains {answers}"
        self._worlds = list(after.values())

    async def agree(self, ids: Sequence[str], seen: dict[str, Any]) -> None:
        """Keep the worlds that look like this."""
        expected = [await visible(ModelEngine(self._clock, world), ids) for world in self._worlds]
        self._keep(expected, seen)
        if not self._worlds:
            for what, value in expected[0].items():
                assert seen[what] == value, f"{what}\nSQLite: {seen[what]}\nmodel:  {value}"

    def _keep(self, expected: Sequence[object], seen: object) -> None:
        self._worlds = [world for world, each in zip(self._worlds, expected, strict=True) if each == seen]


async def visible(engine: Any, ids: Sequence[str]) -> dict[str, Any]:
    """Everything that can be seen of the store."""
    jobs, overview, attempts, steps, events = await asyncio.gather(
        engine.find(JobQuery(limit=1000)),
        engine.overview(),
        asyncio.gather(*map(engine.attempts, ids)),
        asyncio.gather(*map(engine.steps, ids)),
        asyncio.gather(*(read_log(engine, job_id, 0, 1000) for job_id in ids)),
    )
    return {
        "jobs": jobs,
        "attempts": dict(zip(ids, attempts, strict=True)),
        "steps": dict(zip(ids, steps, strict=True)),
        "events": dict(zip(ids, events, strict=True)),
        "now": overview.now,
        "counts": {entry: count for entry, count in overview.counts.items() if count},
        "workers": sorted(overview.workers),
        "schedules": sorted(overview.schedules),
    }
