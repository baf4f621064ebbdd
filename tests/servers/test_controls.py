"""The same servers without the library: proof that these tests can see what is lost."""

from __future__ import annotations

import pytest

from .clients import CLEAN
from .conftest import Runs
from .scenario import TERM, Case
from .setups import Setup

pytestmark = pytest.mark.server

_UVICORN = Setup("uvicorn", 1, "uvloop")
_GRANIAN = Setup("granian", 1, "uvloop")
_HYPERCORN = Setup("hypercorn", 1, "asyncio")


def _bare(setup: Setup, *kinds: str, give_up_seconds: float = 8.0) -> Case:
    closing = "background-async" in kinds
    return Case(
        setup, TERM, kinds, application="bare", keep_connections=not closing, give_up_seconds=give_up_seconds
    )


@pytest.mark.parametrize("case", [_bare(_UVICORN, "sse-foreign", give_up_seconds=4.0)], ids=str)
def test_an_endless_stream_is_seen_to_hang(case: Case, runs: Runs) -> None:
    """Without the library uvicorn waits for an endless stream for ever."""
    assert runs[case].exited_at is None


@pytest.mark.parametrize("case", [_bare(_UVICORN, "task")], ids=str)
def test_a_lost_task_is_seen(case: Case, runs: Runs) -> None:
    """Without the library uvicorn takes its tasks down with it: neither finished nor cancelled."""
    run = runs[case]
    assert run.of("started", "task") and not run.of("finished", "task") and not run.of("cancelled", "task")


@pytest.mark.parametrize("case", [_bare(_GRANIAN, "background-async")], ids=str)
def test_a_lost_background_task_is_seen(case: Case, runs: Runs) -> None:
    """Without the library granian drops a BackgroundTask without a word, and says 0."""
    run = runs[case]
    assert run.exit_code == 0 and not run.of("finished") and not run.of("cancelled")


@pytest.mark.parametrize("case", [_bare(_HYPERCORN, "sse-foreign")], ids=str)
def test_a_cut_stream_is_seen(case: Case, runs: Runs) -> None:
    """Without the library hypercorn ends a stream without its final chunk; these clients can tell."""
    assert runs[case].clients["sse-foreign"].ending != CLEAN
