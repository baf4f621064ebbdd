"""The pruner: deletes ended jobs whose retention is over, a few at a time."""

from __future__ import annotations

from ._engine import Engine
from ._service import Service

_REST_SECONDS = 30.0
_AT_ONCE = 200
_BREATH_SECONDS = 0.1


class Pruner(Service):
    name = "pruner"

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine

    async def run_once(self) -> float | None:
        deleted = await self._engine.prune(_AT_ONCE)
        return _REST_SECONDS if deleted < _AT_ONCE else _BREATH_SECONDS
