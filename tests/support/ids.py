"""Names of parametrised tests that are the same in every process: pytest-xdist refuses to run others."""

import re

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def stable(value: object) -> str:
    """`repr`, without addresses, and sets in order."""
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__}({sorted(map(repr, value))})"
    return _ADDRESS.sub("", repr(value))
