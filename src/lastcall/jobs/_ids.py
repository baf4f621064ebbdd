"""Ids of jobs and workers: UUIDs of version 7 (RFC 9562), unique everywhere and in the order of their making.

The only file that imports uuid_utils (Python has `uuid.uuid7` from 3.14 on).
"""

from __future__ import annotations

import re

from uuid_utils import uuid7

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


def new_id() -> str:
    """A new id."""
    return str(uuid7())


def is_id(text: object) -> bool:
    """Whether this can be an id at all."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None
