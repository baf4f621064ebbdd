"""SignalWatch: chained, never replaced, handed back; the first asks, a later one forces."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from lastcall._core._signals import SignalWatch

pytestmark = pytest.mark.loops("asyncio", "uvloop")


@pytest.fixture(autouse=True)
def handlers_as_they_were() -> Iterator[None]:
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    yield
    after = {signum: signal.getsignal(signum) for signum in before}
    for signum, handler in before.items():
        signal.signal(signum, handler)
    assert after == before, "the watch did not hand the signals back"


class Server:
    """Stands for a web server: a bound method as handler, found again by `__self__`."""

    def __init__(self, ledger: list[str]) -> None:
        self.ledger = ledger

    def handle_exit(self, signum: int, frame: FrameType | None) -> None:
        self.ledger.append(f"server {signal.Signals(signum).name}")


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until it is so; at most ten seconds."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def make(ledger: list[str], **options: Any) -> SignalWatch:
    return SignalWatch(
        asyncio.get_running_loop(),
        lambda signum: ledger.append(f"request {signal.Signals(signum).name}"),
        lambda signum: ledger.append(f"force {signal.Signals(signum).name}"),
        **options,
    )


async def test_chained_and_handed_back() -> None:
    """The server's own handler is still called, at once, is found by `__self__`, and is back afterwards."""
    ledger: list[str] = []
    server = Server(ledger)
    before = signal.signal(signal.SIGTERM, server.handle_exit)
    watch = make(ledger)
    assert watch.install()
    current: Any = signal.getsignal(signal.SIGTERM)
    assert current.__self__ is server
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: len(ledger) == 2)
    assert ledger == ["server SIGTERM", "request SIGTERM"]
    assert watch.received == [signal.SIGTERM]
    watch.restore()
    watch.restore()
    assert signal.getsignal(signal.SIGTERM) == server.handle_exit
    signal.signal(signal.SIGTERM, before)


async def test_a_repeat_within_the_window_is_the_same_request() -> None:
    """A process group's signal arrives twice at once: one request, no force; the server hears both."""
    ledger: list[str] = []
    before = signal.signal(signal.SIGTERM, Server(ledger).handle_exit)
    watch = make(ledger, repeat_window_seconds=3600)
    watch.install()
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0)
    await until(lambda: ledger.count("server SIGTERM") == 3 and "request SIGTERM" in ledger)
    await asyncio.sleep(0)
    assert ledger.count("request SIGTERM") == 1 and "force SIGTERM" not in ledger
    watch.restore()
    signal.signal(signal.SIGTERM, before)


async def test_a_later_repeat_forces_also_with_the_other_signal() -> None:
    """SIGTERM asks, a Ctrl-C after it insists, a third time insists again."""
    ledger: list[str] = []
    signal_before = {s: signal.signal(s, Server(ledger).handle_exit) for s in (signal.SIGTERM, signal.SIGINT)}
    watch = make(ledger, repeat_window_seconds=0)
    watch.install()
    for signum, count in ((signal.SIGTERM, 1), (signal.SIGINT, 2), (signal.SIGINT, 3)):
        os.kill(os.getpid(), signum)
        await until(lambda count=count: sum("server" not in line for line in ledger) == count)  # type: ignore[misc]
    assert [line for line in ledger if "server" not in line] == [
        "request SIGTERM",
        "force SIGINT",
        "force SIGINT",
    ]
    watch.restore()
    for signum, handler in signal_before.items():
        signal.signal(signum, handler)


async def test_defaults_are_not_called() -> None:
    """SIG_DFL would kill us in the middle of the drain and SIG_IGN is nothing to call: both stay as they were."""
    ledger: list[str] = []
    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, signal.SIG_DFL),
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
    }
    watch = make(ledger, repeat_window_seconds=0)
    watch.install()
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: len(ledger) == 1)
    os.kill(os.getpid(), signal.SIGINT)
    await until(lambda: len(ledger) == 2)
    assert ledger == ["request SIGTERM", "force SIGINT"]
    watch.restore()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.mark.parametrize("spare", [True, False])
def test_pythons_own_sigint_handler(
    spare: bool, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """KeyboardInterrupt cuts the drain: spared on demand, and otherwise raised as ever."""
    ledger: list[str] = []
    loop = loop_factory()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    watch = SignalWatch(
        loop, lambda signum: ledger.append("request"), lambda signum: None, spare_default=spare
    )

    async def main() -> None:
        watch.install()
        os.kill(os.getpid(), signal.SIGINT)
        await until(lambda: bool(ledger))

    try:
        if spare:
            loop.run_until_complete(main())
        else:
            with pytest.raises(KeyboardInterrupt):
                loop.run_until_complete(main())
        loop.run_until_complete(until(lambda: bool(ledger)))
        assert ledger == ["request"]
    finally:
        watch.restore()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        signal.signal(signal.SIGINT, before)


async def test_off_the_main_thread_nothing_happens() -> None:
    """In a server that runs in a thread no signal can be heard: False, and no handler was touched."""
    ledger: list[str] = []
    before = signal.getsignal(signal.SIGTERM)
    watch = make(ledger)
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: (answers.append(watch.install()), watch.restore()))
    thread.start()
    thread.join()
    assert answers == [False] and signal.getsignal(signal.SIGTERM) is before


async def test_a_delay_keeps_the_server_serving() -> None:
    """With a notice phase the server hears of the first signal later, once, and from the loop."""
    ledger: list[str] = []
    before = signal.signal(signal.SIGTERM, Server(ledger).handle_exit)
    watch = make(ledger, delay_seconds=0.3, repeat_window_seconds=3600)
    watch.install()
    loop = asyncio.get_running_loop()
    began = loop.time()
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: "request SIGTERM" in ledger)
    assert "server SIGTERM" not in ledger
    await until(lambda: "server SIGTERM" in ledger)
    assert loop.time() - began >= 0.29
    assert ledger == ["request SIGTERM", "server SIGTERM"]
    watch.restore()
    signal.signal(signal.SIGTERM, before)


async def test_force_ends_the_delay() -> None:
    """Somebody insists: the server hears of it at once, and not a second time when the delay is over."""
    ledger: list[str] = []
    before = signal.signal(signal.SIGTERM, Server(ledger).handle_exit)
    watch = make(ledger, delay_seconds=0.4, repeat_window_seconds=0)
    watch.install()
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: "request SIGTERM" in ledger)
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: "force SIGTERM" in ledger)
    assert ledger.count("server SIGTERM") == 1
    await asyncio.sleep(0.6)  # longer than the delay: nothing more may come
    assert ledger.count("server SIGTERM") == 1
    watch.restore()
    signal.signal(signal.SIGTERM, before)


async def test_two_watches_nest() -> None:
    """The second wraps the first: both hear, and taken off in reverse order everything is as before."""
    ledger: list[str] = []
    before = signal.signal(signal.SIGTERM, Server(ledger).handle_exit)
    outer, inner = make(ledger), make(ledger)
    outer.install()
    inner.install()
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: len(ledger) == 3)
    assert sorted(ledger) == ["request SIGTERM", "request SIGTERM", "server SIGTERM"]
    current: Any = signal.getsignal(signal.SIGTERM)
    assert isinstance(current.__self__, Server)
    inner.restore()
    outer.restore()
    ours: Any = signal.getsignal(signal.SIGTERM)
    assert isinstance(ours.__self__, Server) and ours.__func__ is Server.handle_exit
    signal.signal(signal.SIGTERM, before)


async def test_two_watches_taken_off_in_the_other_order() -> None:
    """The inner one leaves last: the signal must not stay with a watch that is over."""
    ledger: list[str] = []
    server = Server(ledger)
    before = signal.signal(signal.SIGTERM, server.handle_exit)
    outer, inner = make(ledger), make(ledger)
    outer.install()
    inner.install()
    outer.restore()
    inner.restore()
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: "server SIGTERM" in ledger)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert ledger == ["server SIGTERM"]
    signal.signal(signal.SIGTERM, before)


async def test_somebody_who_wrapped_ours_keeps_the_signal() -> None:
    """Another library has put its handler above ours: restoring must not throw it out."""
    ledger: list[str] = []
    before = signal.getsignal(signal.SIGTERM)
    watch = make(ledger)
    watch.install()
    ours: Any = signal.getsignal(signal.SIGTERM)

    def wrapper(signum: int, frame: FrameType | None) -> None:
        ledger.append("wrapper")
        ours(signum, frame)

    signal.signal(signal.SIGTERM, wrapper)
    watch.restore()
    assert signal.getsignal(signal.SIGTERM) is wrapper
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: "wrapper" in ledger)
    signal.signal(signal.SIGTERM, before)


def test_a_signal_after_the_loop_has_closed(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Nothing is left to tell, and nothing may be raised into whatever runs now."""
    ledger: list[str] = []
    before = signal.signal(signal.SIGTERM, Server(ledger).handle_exit)
    loop = loop_factory()
    watch = SignalWatch(loop, lambda signum: ledger.append("no"), lambda signum: ledger.append("no"))
    watch.install()
    loop.close()
    os.kill(os.getpid(), signal.SIGTERM)
    assert ledger == ["server SIGTERM"]
    watch.restore()
    signal.signal(signal.SIGTERM, before)
