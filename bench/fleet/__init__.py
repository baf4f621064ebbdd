"""A fleet that is killed all day: workers on one database, an adversary with a seed, a ledger outside, a verdict.

General layout:

- `main.py`     the command `python -m bench fleet`
- `plan.py`     pure: what is done when, drawn from the seed
- `play.py`     one play from its beginning to its verdict, and the adversary
- `workers.py`  the worker processes: how they begin, who may be attacked, how they end
- `users.py`    those who submit, cancel, answer and read
- `work.py`     the jobs, and how each must end
- `app.py`      what `lastcall worker` runs, `process.py` the process it runs in
- `stores.py`   a PostgreSQL server or an SQLite file, and what is done to it
- `verdict.py`  pure: promise by promise, and the figures

The ledger, the checker and the forking server are those of `tests/jobs/crash`, the server and the proxy those of
`tests/support`.
"""
