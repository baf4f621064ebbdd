"""A conversation as a stream in a file: written, followed, branched in the middle.

    python examples/free_streams.py

Run it again: it is still there.
"""

import asyncio

from lastcall.jobs import Jobs
from lastcall.streams import Stream

jobs = Jobs("sqlite:///free_streams.db")


async def talk() -> Stream:
    stream = await jobs.streams.create("chat/42", ttl_seconds=3600)
    if not (await stream.info()).closed:
        await stream.append_json({"user": "Hello"}, {"agent": "Hi"})
        await stream.append_json({"user": "And now?"})
        await stream.close()
    return stream


async def show(stream: Stream) -> None:
    async for entry in stream.follow(after=0):  # what is there, then what comes, until it is closed
        print(f"{stream.name} {entry.seq}: {entry.data}", flush=True)


async def branch(stream: Stream) -> Stream:
    other = await stream.fork("chat/42/again", after=2)  # begins with two entries, and goes its own way
    if not (await other.info()).closed:
        await other.append_json({"user": "Something else"})
        await other.close()
    return other


async def listing() -> None:
    for info in await jobs.streams.find(prefix="chat/"):  # by name; the next page: after=info.name
        print(f"{info.name}: {info.entries} entries, {'closed' if info.closed else 'open'}")


async def main() -> None:
    async with jobs:
        stream = await talk()
        await show(stream)
        await show(await branch(stream))
        await listing()


asyncio.run(main())
