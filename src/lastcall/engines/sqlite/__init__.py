"""Durable jobs in one SQLite file: WAL, one writer thread with group commit, several processes on one file.

General layout:

    _engine       SqliteEngine: the verbs of the port, each a call for the writer or the reader thread
    _writer       the writer thread: everything that waits becomes one commit
    _reader       the reader thread: listings never delay a commit
    _hints        who else has written: inotify (_inotify) first, looks at the file (_lookout) beneath
    _database     one file as one thread has it open; vanished, replaced, coming back
    _schema       tables, migrations, whose file this is
    _errors       sqlite3's errors in words that help
    _store        what verbs work with inside the transaction
    _suspects     who is to run alone
    _submit _claim _ends _waits _limits _steps _outside _workers _transact    the verbs that write
    _reads        the verbs that read
    _clock, _url

Imports go from the engine down to the store; the verbs know no thread and no loop.
"""

from ._clock import Clock as Clock
from ._clock import SystemClock as SystemClock
from ._engine import SqliteEngine as SqliteEngine
from ._url import from_url as from_url
