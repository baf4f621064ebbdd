"""Tasks that nobody cancels do not run on: asyncio.run cancels them all, and then waits without a limit."""

import asyncio
import time

told: list[str] = []


async def forgotten(clean_up_seconds: float) -> None:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        told.append("cancelled by asyncio.run")
        await asyncio.sleep(clean_up_seconds)
        raise


async def main() -> None:
    main.task = asyncio.create_task(forgotten(0.3))  # type: ignore[attr-defined]
    await asyncio.sleep(0)


if __name__ == "__main__":
    begun = time.monotonic()
    asyncio.run(main())
    assert told == ["cancelled by asyncio.run"]
    assert time.monotonic() - begun > 0.3
