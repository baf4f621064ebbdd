"""What the commands print: the answer on standard output, one line about trouble on standard error."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any

from lastcall.exceptions import LastcallError

_LONGEST = 1000
_PASSWORD = re.compile(r"^([a-z+]+://[^/?#@:]*:)[^/]*@", flags=re.IGNORECASE)


class Unusable(Exception):
    """What was typed cannot be used. `details`: what to print before the line, a traceback of the user's own code."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


def one_line(text: str) -> str:
    """Other people's words on one line, without characters that a terminal obeys."""
    return printable(" ".join(text[:_LONGEST].split()))


def printable(line: str) -> str:
    """The line, with a mark in place of every character that cannot be printed."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)


def without_password(url: str) -> str:
    """A URL as it may stand in a log."""
    return _PASSWORD.sub(r"\1***@", url)


def complain(message: str, details: str = "") -> None:
    """One line on standard error, after the details if there are any."""
    sys.stderr.write(f"{details}lastcall: {one_line(message)}\n")


def complain_of(error: Exception) -> None:
    """What is wrong with what was typed, with a place or with what is stored there, in one line."""
    if isinstance(error, UnicodeEncodeError):
        complain(f"{error.object!r} is no text in this system's encoding")
    elif isinstance(error, ValueError) and not isinstance(error, LastcallError):
        complain(f"what is stored cannot be read: {error}")  # a row that somebody has damaged
    else:
        complain(str(error), error.details if isinstance(error, Unusable) else "")


def write(text: str) -> bool:
    """Text on standard output; False if its reader has left (`| head`), which is no error. A full disk is one
    (`Unusable`)."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
        return True
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise Unusable(f"the answer cannot be written: {error.strerror or error}") from None
        return False


def write_json(content: Any) -> None:
    """One JSON document on standard output."""
    write(json.dumps(content, indent=2, default=str) + "\n")
