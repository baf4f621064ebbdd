"""Runs the interpreter's own test_taskgroups with another TaskGroup: `program LOOP lastcall|broken`. Prints JSON."""

import asyncio
import json
import sys
import unittest
from asyncio import taskgroups
from typing import Any

import lastcall
from tests.support.virtualtime import VirtualTimeLoop

loop_name, whose = sys.argv[1:]
made = 0


class Broken(lastcall.TaskGroup):
    """Raises nothing, whatever its children did."""

    async def __aexit__(self, *raised: Any) -> bool | None:
        try:
            return await super().__aexit__(*raised)
        except BaseExceptionGroup:
            return True


def counted(group: Any) -> Any:
    before = group.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        global made
        made += 1
        before(self, *args, **kwargs)

    group.__init__ = init
    return group


def set_loop(name: str) -> None:
    """The runner of unittest takes its loop from here; a class that names a loop factory itself keeps that."""
    make_plain = asyncio.events.new_event_loop

    def make() -> asyncio.AbstractEventLoop:
        if name == "uvloop":
            import uvloop

            return uvloop.new_event_loop()
        if name == "virtual":  # where what is tested is no loop, and their sleeps need not be slept
            return VirtualTimeLoop()
        loop = make_plain()
        if name == "eager":
            loop.set_task_factory(asyncio.eager_task_factory)
        return loop

    asyncio.new_event_loop = asyncio.events.new_event_loop = make


group = counted(Broken if whose == "broken" else lastcall.TaskGroup)
taskgroups.TaskGroup = asyncio.TaskGroup = group
set_loop(loop_name)

from test.test_asyncio import test_taskgroups  # noqa: E402 - it must see the other class

suite = unittest.defaultTestLoader.loadTestsFromModule(test_taskgroups)
result = unittest.TextTestRunner(stream=sys.stderr).run(suite)
bad = [*result.failures, *result.errors, *((test, "") for test in result.unexpectedSuccesses)]
print(
    json.dumps(
        {
            "ran": result.testsRun,
            "groups": made,
            "failed": sorted(f"{test.id()}: {text.strip().splitlines()[-1:]}" for test, text in bad),
            "skipped": [f"{test.id()}: {why}" for test, why in result.skipped],
        }
    )
)
