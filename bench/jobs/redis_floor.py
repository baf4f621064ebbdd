"""Raw redis-py: what an entry in a stream costs, and its way through a consumer group.

Run by the interpreter beside the Redis server: `python -m bench.jobs.redis_floor URL COUNT`, answer as JSON.
"""

import json
import sys
import time

import redis

STREAM, GROUP = "floor", "floor"
BATCH = 100


def add_one_by_one(client: redis.Redis, count: int) -> float:
    """Seconds for `count` entries, each waited for."""
    began = time.perf_counter()
    for number in range(count):
        client.xadd(STREAM, {"task": "noop", "args": f'{{"n":{number}}}'})
    return time.perf_counter() - began


def process(client: redis.Redis, count: int) -> float:
    """Seconds to read them through a group, a batch at a time, write a result for each, and acknowledge."""
    began = time.perf_counter()
    done = 0
    while done < count:
        ((_, entries),) = client.xreadgroup(GROUP, "one", {STREAM: ">"}, count=BATCH)
        with client.pipeline(transaction=False) as pipe:
            for entry, _ in entries:
                pipe.set(f"result:{entry.decode()}", "null", ex=600)
            pipe.xack(STREAM, GROUP, *(entry for entry, _ in entries))
            pipe.execute()
        done += len(entries)
    return time.perf_counter() - began


def main() -> None:
    url, count = sys.argv[1], int(sys.argv[2])
    client = redis.Redis.from_url(url)
    client.xgroup_create(STREAM, GROUP, mkstream=True)
    submit = add_one_by_one(client, count)
    processed = process(client, count)
    client.flushdb()
    client.close()
    print(json.dumps({"submit": count / submit, "process": count / processed}))


if __name__ == "__main__":
    main()
