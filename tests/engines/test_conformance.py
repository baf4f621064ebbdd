"""The conformance suite over every engine there is, and over the model that they are compared with."""

import pytest

from lastcall.jobs._engine import Engine
from lastcall.testing.conformance import Case, Harness, cases, transaction_cases
from tests.engines.model import ModelEngine, ModelStore


class ModelHarness(Harness):
    """Two model engines on one store."""

    def __init__(self) -> None:
        super().__init__()
        self.store = ModelStore()

    def make(self) -> Engine:
        return ModelEngine(self.clock, self.store)

    def kill(self, worker_id: str) -> bool:
        self.store.dead_processes.add(worker_id)
        return True


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("case", cases() + transaction_cases(), ids=str)
async def test_the_model(case: Case) -> None:
    """The model keeps every rule itself."""
    await case.run(ModelHarness())
