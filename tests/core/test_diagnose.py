"""Where work stands: the innermost await, whatever kinds of awaitables lie above it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Generator

from lastcall._core._diagnose import task_stack, thread_stack


def functions(stack: list[str]) -> list[str]:
    return [line.rsplit(" in ", 1)[-1].rsplit(".", 1)[-1] for line in stack if " in " in line]


async def test_the_whole_await_chain() -> None:
    """Three coroutines deep, in a future: outermost first, and in the end what is waited for."""
    future = asyncio.get_running_loop().create_future()

    async def inner() -> None:
        await future

    async def middle() -> None:
        await inner()

    async def outer() -> None:
        await middle()

    task = asyncio.create_task(outer())
    await asyncio.sleep(0)
    stack = task_stack(task)
    assert functions(stack) == ["outer", "middle", "inner"]
    assert stack[-1].startswith("waiting for")
    assert all(f"{__file__}:" in line for line in stack[:-1])
    future.set_result(None)
    await task


async def test_through_an_async_generator() -> None:
    """`async for` over a generator that hangs in an await: its frame is in the chain."""
    gate = asyncio.Event()

    async def chunks() -> AsyncIterator[int]:
        yield 1
        await gate.wait()

    async def reads() -> None:
        async for _ in chunks():
            pass

    task = asyncio.create_task(reads())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert functions(task_stack(task))[0] == "reads"
    assert "chunks" in functions(task_stack(task))
    gate.set()
    await task


async def test_through_an_awaitable_object() -> None:
    """An object whose `__await__` is a generator is walked through as well."""
    gate = asyncio.Event()

    class Pool:
        def __await__(self) -> Generator[object, None, None]:
            yield from gate.wait().__await__()

    async def uses() -> None:
        await Pool()

    task = asyncio.create_task(uses())
    await asyncio.sleep(0)
    assert functions(task_stack(task))[:2] == ["uses", "__await__"]
    gate.set()
    await task


async def test_a_task_that_has_not_begun_or_has_ended() -> None:
    """No step yet: its first line. Ended: nothing. Never an error."""

    async def work() -> None: ...

    task = asyncio.get_running_loop().create_task(work())
    assert functions(task_stack(task)) in (["work"], [])  # an eager task is over already
    await task
    assert task_stack(task) == []


async def test_the_running_task_itself() -> None:
    """Asking for one's own stack works, though it is not suspended."""
    task = asyncio.current_task()
    assert task is not None
    assert isinstance(task_stack(task), list)


async def test_a_very_deep_chain_is_cut() -> None:
    """A recursion of several hundred awaits gives a bounded stack."""
    gate = asyncio.Event()

    async def deep(left: int) -> None:
        if left:
            await deep(left - 1)
        else:
            await gate.wait()

    task = asyncio.create_task(deep(300))
    await asyncio.sleep(0)
    stack = task_stack(task)
    assert 50 <= len(stack) <= 200
    gate.set()
    await task


def test_a_threads_frames() -> None:
    """A waiting thread shows where it waits; one that has ended, or never was, shows nothing."""
    release, waiting = threading.Event(), threading.Event()

    def waits_here() -> None:
        waiting.set()
        release.wait(60)

    thread = threading.Thread(target=waits_here)
    thread.start()
    waiting.wait(30)
    stack = thread_stack(thread.ident)
    assert any("waits_here" in line for line in stack)
    assert "waits_here" in thread_stack(thread.ident, below="Thread.run")[0]
    release.set()
    thread.join()
    assert thread_stack(thread.ident) == [] or thread.ident in {t.ident for t in threading.enumerate()}
    assert thread_stack(None) == []
