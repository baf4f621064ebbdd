"""The PostgreSQL engine and the model are told the same things at random: each answer and everything visible must
agree."""

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from lastcall.engines.postgres import PostgresEngine
from tests.engines.operations import WORKERS
from tests.engines.test_state_machine import LONG, SHRINKING_SECONDS, EngineMachine
from tests.engines.worlds import Ask
from tests.support.postgres import shared_url

from .support import clear, empty_schema


class PostgresMachine(EngineMachine):
    """Two PostgreSQL engines on one schema."""

    def __init__(self) -> None:
        self.schemas = empty_schema()
        self.schema = self.schemas.__enter__()
        self.cleared = False
        self.verbs: list[str] = []
        super().__init__()

    async def _open(self) -> None:
        if not self.cleared:
            await clear(self.schema)
            self.cleared = True
        self.real: list[Any] = [
            PostgresEngine(shared_url(), schema=self.schema, pool_size=2, clock=self.clock) for _ in WORKERS
        ]
        for engine in self.real:
            await engine.open()

    def teardown(self) -> None:
        super().teardown()
        self.schemas.__exit__(None, None, None)

    def all_at_once(self, calls: list[tuple[int, Ask]]) -> None:
        super().all_at_once([call for call, verb in zip(calls, self.verbs, strict=True) if verb != "claim"])
        self.verbs.clear()

    def ask(self, verb: str, what: Any, how: Any = None) -> Ask:
        """Not claims: they pass over what others are at in that moment, so no order need explain them (but what they
        take nobody else does: see `test_races`)."""
        self.verbs.append(verb)
        return super().ask(verb, what, how)

    def jump_wall(self, seconds: float) -> None:
        """A server has no clock but this one: a jump takes due times, leases and rates along (see `test_leases`)."""


PostgresMachine.TestCase.settings = settings(
    max_examples=1000 if LONG else 15,
    stateful_step_count=100 if LONG else 30,
    deadline=None,
    # A race does not come again, so there is nothing to shrink.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)

TestPostgresMachine = pytest.mark.slow(
    pytest.mark.timeout(7200 if LONG else SHRINKING_SECONDS)(PostgresMachine.TestCase)
)
