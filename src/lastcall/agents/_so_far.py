"""What an earlier attempt at a step of policy `continue` has told before it was cut off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..exceptions import NotInJob
from ..jobs import current_step


def emitted_so_far() -> Sequence[Any]:
    """The data of its events; none outside of a job, where nothing comes before."""
    try:
        return current_step().so_far
    except NotInJob:
        return ()


def text_in(emitted: Sequence[Any]) -> str:
    """The text that was streamed."""
    return "".join(data["text"] for data in emitted if isinstance(data, Mapping) and "text" in data)
