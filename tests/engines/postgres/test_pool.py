"""The connections of an engine: who gets one, and when a new one is opened. What connects is the test's own, and so is
the order of events."""

import asyncio

import pytest

from lastcall.engines.postgres._pool import Pool
from lastcall.exceptions import EngineUnavailable

pytestmark = pytest.mark.loops("asyncio")


class Connection:
    """As much of one as the pool looks at."""

    def __init__(self) -> None:
        self.closed = False

    def is_closed(self) -> bool:
        return self.closed

    def terminate(self) -> None:
        self.closed = True

    async def close(self, timeout: float) -> None:
        self.closed = True


class Server:
    """Lets a pool connect when it is told to."""

    def __init__(self) -> None:
        self.asked: list[asyncio.Future[Connection]] = []
        self.cancelled = 0

    async def connect(self) -> Connection:
        answer: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self.asked.append(answer)
        try:
            return await answer
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    def accept(self) -> Connection:
        connection = Connection()
        self.asked[-1].set_result(connection)
        return connection

    def refuse(self, why: str) -> None:
        self.asked[-1].set_exception(EngineUnavailable(why))


async def turns() -> None:
    """Whatever can go on without the test has done so."""
    for _ in range(20):
        await asyncio.sleep(0)


def caller(pool: Pool) -> asyncio.Task[Connection]:
    return asyncio.create_task(pool.take())


async def with_one(size: int) -> tuple[Pool, Server, Connection]:
    """A pool whose first connection is in use."""
    server = Server()
    pool = Pool(server.connect, size)
    first = caller(pool)
    await turns()
    connection = server.accept()
    assert await first is connection
    return pool, server, connection


async def test_nobody_waits_for_a_new_connection_while_another_comes_free() -> None:
    """A claim finds no connection free, and a server that takes its time for a new one; the submit before it ends, and
    the claim goes on its connection. The first jobs of a process waited for three new ones."""
    pool, server, connection = await with_one(size=2)
    claim = caller(pool)
    await turns()
    assert len(server.asked) == 2
    pool.give_back(connection)
    assert await claim is connection
    another = server.accept()
    await turns()
    assert await pool.take() is another
    await pool.close()


async def test_they_are_opened_one_after_the_other() -> None:
    """Three calls at once on a cold pool: one connection may be enough for all of them, and comes sooner alone."""
    server = Server()
    pool = Pool(server.connect, 4)
    callers = [caller(pool) for _ in range(3)]
    await turns()
    assert len(server.asked) == 1
    first = server.accept()
    await turns()
    assert callers[0].done() and len(server.asked) == 2
    pool.give_back(first)
    await turns()
    assert callers[1].result() is first
    second = server.accept()
    assert await callers[2] is second
    assert len(server.asked) == 2
    await pool.close()


async def test_one_who_is_cancelled_in_the_moment_of_getting_one_passes_it_on() -> None:
    """Two wait; the first is given a connection and cancelled in the same turn. The second did not hear of it, and
    waited for ten seconds beside a connection that was free."""
    pool, _, connection = await with_one(size=1)
    first, second = caller(pool), caller(pool)
    await turns()
    pool.give_back(connection)
    first.cancel()
    await turns()
    assert first.cancelled()
    assert second.done() and second.result() is connection
    await pool.close()


async def test_one_who_is_cancelled_while_it_waits_gets_none() -> None:
    """It left the line: what comes free goes to the next."""
    pool, _, connection = await with_one(size=1)
    first, second = caller(pool), caller(pool)
    await turns()
    first.cancel()
    await turns()
    pool.give_back(connection)
    assert first.cancelled() and await second is connection
    await pool.close()


async def test_a_server_with_no_connection_left() -> None:
    """It refuses a second one: whoever waits gets the first, and is not told of any trouble."""
    pool, server, connection = await with_one(size=2)
    waiting = caller(pool)
    await turns()
    server.refuse("too many clients")
    await turns()
    assert not waiting.done()
    pool.give_back(connection)
    assert await waiting is connection
    assert len(server.asked) == 2
    await pool.close()


async def test_a_server_that_is_away() -> None:
    """Nobody gets through: all who wait are told at once, each by an error of its own."""
    server = Server()
    pool = Pool(server.connect, 2)
    callers = [caller(pool) for _ in range(3)]
    await turns()
    server.refuse("it is away")
    errors = await asyncio.gather(*callers, return_exceptions=True)
    assert [str(error) for error in errors] == ["it is away"] * 3
    assert len({id(error) for error in errors}) == 3
    again = caller(pool)
    await turns()
    assert server.accept() is await again
    await pool.close()


async def test_a_lost_connection_makes_room_for_those_who_wait() -> None:
    """The only one breaks while somebody waits for it: another one is opened for them."""
    pool, server, connection = await with_one(size=1)
    waiting = caller(pool)
    await turns()
    assert len(server.asked) == 1
    pool.drop(connection)
    await turns()
    assert server.accept() is await waiting
    await pool.close()


async def test_a_close_while_one_is_being_opened() -> None:
    """The opening is ended with it, and whoever waits, or comes later, hears that it is over."""
    pool, server, connection = await with_one(size=2)
    waiting = caller(pool)
    await turns()
    await pool.close()
    assert server.cancelled == 1 and connection.closed
    with pytest.raises(EngineUnavailable, match="closed"):
        await waiting
    with pytest.raises(EngineUnavailable, match="closed"):
        await pool.take()
    pool.give_back(connection)
    assert len(server.asked) == 2
