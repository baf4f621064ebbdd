"""A conversation as a stream in a file: written by one task, followed by two, branched in the middle.

    python examples/free_streams.py

Run it again: it is still there.
"""

import asyncio

from lastcall.jobs import Jobs
from lastcall.streams import Stream

jobs = Jobs("sqlite:///free_streams.db")


async def follow(who: str, stream: Stream) -> None:
    async for entry in stream.follow():
        print(f"{who} {entry.seq}: {entry.data}", flush=True)


async def main() -> None:
    async with jobs:
        stream = await jobs.streams.create("chat/42", ttl_seconds=3600)
        if not (await stream.info()).last:
            await stream.append_json({"user": "Hello"}, {"agent": "Hi"})
        async with asyncio.TaskGroup() as readers:
            readers.create_task(follow("first", stream))
            readers.create_task(follow("second", stream))
            if not (await stream.info()).closed:
                await stream.append_json({"user": "And now?"})
                await stream.close()
        branch = await stream.fork("chat/42/again", after=2)
        if not (await branch.info()).closed:
            await branch.append_json({"user": "Something else"})
            await branch.close()
        await follow("branch", branch)


asyncio.run(main())
