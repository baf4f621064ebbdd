"""Who reads what: counted per piece of work, with one countdown, in virtual time."""

import asyncio
from contextlib import ExitStack

import pytest

from lastcall.asgi._log_audience import Audience

pytestmark = pytest.mark.loops("virtual")


class Abandoned(list[str]):
    def of(self, name: str) -> object:
        return lambda: self.append(name)


async def test_the_most_patient_wish_counts() -> None:
    """Ten seconds for one, thirty for the other: thirty, whoever leaves last; no wish is no wish."""
    audience, abandoned = Audience(lambda: False), Abandoned()
    with ExitStack() as stack:
        stack.enter_context(audience.reading("a", 30, abandoned.of("patient")))
        stack.enter_context(audience.reading("a", 10, abandoned.of("hasty")))
        stack.enter_context(audience.reading("a", None, None))
        assert audience.count("a") == 3
    await asyncio.sleep(29)
    assert abandoned == []
    await asyncio.sleep(2)
    assert abandoned == ["patient"] and audience.count("a") == 0


async def test_without_a_wish_nothing_happens() -> None:
    """And nothing is kept of it."""
    audience = Audience(lambda: False)
    with audience.reading("a", None, None):
        pass
    await asyncio.sleep(1000)
    assert not audience._seats


async def test_each_work_has_its_own_countdown() -> None:
    """A reader of one does not keep the other."""
    audience, abandoned = Audience(lambda: False), Abandoned()
    with audience.reading("a", 5, abandoned.of("a")):
        with audience.reading("b", 5, abandoned.of("b")):
            pass
        await asyncio.sleep(6)
        assert abandoned == ["b"]


async def test_who_comes_back_again_and_again_is_never_late() -> None:
    """Each return stops the countdown, and the next leaving begins it anew."""
    audience, abandoned = Audience(lambda: False), Abandoned()
    for _ in range(20):
        with audience.reading("a", 5, abandoned.of("a")):
            await asyncio.sleep(1)
        await asyncio.sleep(4.9)
    assert abandoned == []
    await asyncio.sleep(0.2)
    assert abandoned == ["a"]


async def test_never_while_draining() -> None:
    """Neither for who leaves in it, nor for who had left before."""
    draining, abandoned = [False], Abandoned()
    audience = Audience(lambda: draining[0])
    with audience.reading("before", 5, abandoned.of("before")):
        pass
    await asyncio.sleep(1)
    with audience.reading("in it", 5, abandoned.of("in it")):
        draining[0] = True
    await asyncio.sleep(100)
    assert abandoned == [] and not audience._seats


async def test_a_reader_that_fails_has_left_as_well() -> None:
    """Whatever ends its block."""
    audience, abandoned = Audience(lambda: False), Abandoned()
    with pytest.raises(OSError):
        with audience.reading("a", 5, abandoned.of("a")):
            raise OSError
    await asyncio.sleep(6)
    assert abandoned == ["a"]
