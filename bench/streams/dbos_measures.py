"""DBOS on SQLite, by its own `write_stream` and `read_stream`; run by the Python in which it is installed."""

import json
import sys
import threading
import time

from dbos import DBOS, DBOSConfig

COUNT = 0
PACE_SECONDS = 0.0
written: list[float] = []


@DBOS.step()
def speak() -> None:
    for _ in range(COUNT):
        if PACE_SECONDS:
            time.sleep(PACE_SECONDS)
        written.append(time.perf_counter())
        DBOS.write_stream("answer", {"token": "lorem ipsum"})


@DBOS.workflow()
def talk() -> None:
    speak()
    DBOS.close_stream("answer")


def main() -> None:
    global COUNT, PACE_SECONDS
    order = json.loads(sys.argv[2])
    COUNT, PACE_SECONDS = order["count"], order.get("pace_seconds", 0.0)
    config: DBOSConfig = {"name": "bench", "system_database_url": "sqlite:///dbos.db", "log_level": "ERROR"}
    DBOS(config=config)
    DBOS.launch()
    began = time.perf_counter()
    handle = DBOS.start_workflow(talk)
    seen: list[float] = []

    def read() -> None:
        for _ in DBOS.read_stream(handle.get_workflow_id(), "answer"):
            seen.append(time.perf_counter())

    reader = threading.Thread(target=read)
    reader.start()
    handle.get_result()
    took = time.perf_counter() - began
    reader.join()
    waited = sorted(after - before for before, after in zip(written, seen, strict=False))
    answer = {
        "rate": COUNT / took,
        "p50": waited[len(waited) // 2] * 1000,
        "p99": waited[int(len(waited) * 0.99)] * 1000,
    }
    DBOS.destroy()
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
