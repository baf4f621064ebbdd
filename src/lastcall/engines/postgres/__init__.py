"""Durable jobs in PostgreSQL, for fleets: any number of processes and machines on one database.

General layout:

    _engine       PostgresEngine: the verbs of the port, each a call for the database
    _batches      what is called together is written together
    _database     a call becomes as many tries as it needs: lost connections, commits in doubt, deadlocks
    _pool         a few connections of our own
    _driver       the only file that imports asyncpg; its errors in words that help
    _schema       tables, migrations
    _hints        who else has written: NOTIFY, LISTEN, and looking now and then
    _leases       who is dead, also when the server's clock jumps
    _store        what verbs work with, and the order of their locks
    _submit _claim _ends _waits _limits _steps _outside _workers _transact    the verbs that write
    _log          the logs of jobs: appended, numbered, trimmed
    _claims       a claim from its question to its answer, also when that was lost
    _finishes     the same for the ends of attempts
    _reads        the verbs that read
    _streams      free-standing streams (_stream_rows); _threads runs plain code that waits for the loop
    _clock, _url

Imports go from the engine down to the store; the verbs know no pool and no loop, but for `_transact`, whose work runs
in a thread.
"""

from ._engine import PostgresEngine as PostgresEngine
from ._transact import TransactionConnection as TransactionConnection
from ._url import from_url as from_url
