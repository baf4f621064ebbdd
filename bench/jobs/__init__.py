"""Job benchmarks: what durability costs, beside raw SQLite and beside other job libraries; and the deploy test.

General layout:

- `main.py`            the commands: `python -m bench jobs [...]`, `python -m bench deploy [...]`
- `install_peers.py`   makes one virtual environment per peer; also the list of what is installed in each
- `catalog.py`         who takes part, under which settings, with which durability
- `ours.py`            the only file that knows `lastcall.jobs`
- `peers/`             one small file per library, run by the interpreter of that library's environment
- `marks.py`           what job bodies leave behind: time stamps for the speed, a ledger of steps for the deploy test
- `sqlite_floor.py`    raw SQLite: the table of the floors, one commit for each change, claims, commit latency
- `program_floor.py`   the smallest asyncio program with the same rows: group commit, one task per job
- `redis_floor.py`     raw redis-py, run by the interpreter beside the Redis server
- `redis_server.py`    a Redis server of our own, on loopback, ended by us
- `workers.py`         the processes of a contender: its worker, its submitter, and their end
- `child.py`           one measurement in a process of its own
- `run.py`             what every section is given: sizes, contenders, places, the floor of a store
- `throughput.py`, `latency.py`, `memory.py`, `million.py`   the sections: pairs of floor and contender, made into rows
- `recorded.py`        how many results a store in SQLite has, seen from outside
- `deploy.py`          the deploy test; `verdict.py` reads its ledger
- `rows.py`, `report.py`   rows and goals; the tables, the JSON file

No part of the package, and no time is asserted anywhere. The README beside `bench/` says how to read the figures.
"""
