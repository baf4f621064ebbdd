"""What is carried when a store moves from one engine to another: its tables, in the form in which they travel.

Who calls it: the engine that gives them away, the one that takes them in, and `lastcall move`. Names and columns are
those of PostgreSQL's schema. Numbers stay what they are, so that everything that refers to them still does. Workers are
not carried: there is none while a store moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

Row = Sequence[Any]
Key = Sequence[Any]


class Table(NamedTuple):
    """`key`: by which its rows are read in order, each once. `numbered`: the column whose numbers go on growing."""

    name: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    numbered: str | None = None

    def key_of(self, row: Row) -> tuple[Any, ...]:
        return tuple(row[self.columns.index(name)] for name in self.key)


def _table(name: str, key: str, columns: str, numbered: str | None = None) -> Table:
    return Table(name, tuple(key.split()), tuple(columns.split()), numbered)


TABLES = (
    _table("lane", "id", "id queue task version", "id"),
    _table(
        "job",
        "n",
        "n created_at due_at started_at ended_at expires_at retention_seconds lane priority attempt failures lost"
        " lost_in_a_row steps_at_last_loss max_lost max_attempts limit_count last_seq log_bytes log_max_bytes"
        " log_max_age_seconds held tied suspect status id worker cancel_reason key key_task limit_key parent_id labels"
        " options progress args result error",
        "n",
    ),
    _table("attempt", "job attempt", "job attempt worker started_at ended_at outcome reason error"),
    _table("step", "job key", "n job key status policy main attempt started_at ended_at value error", "n"),
    _table("event", "job seq", "job upto at seq attempt step type data"),
    _table("message", "n", "n job name data", "n"),
    _table("wait", "n", "n job step kind name seconds jobs created_at due_at", "n"),
    _table("wait_job", "job_id wait", "job_id wait ended"),
    _table("rate", "task", "task tokens at"),
    _table("schedule", "name", "name last_tick"),
    _table(
        "stream",
        "id",
        "id name content_type created_at ttl_seconds expires_at due closed first last tail writer_seq parent inherited"
        " fork_source fork_seq fork_end fork_further forks gone",
    ),
    _table("stream_entry", "stream seq", "stream seq batch upto at data"),
    _table("stream_producer", "stream id", "stream id epoch seq"),
)
