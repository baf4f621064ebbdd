"""inotify through ctypes: one file is watched for being written to. Linux only.

Who calls it: `_hints`. What can go wrong: no such system call, no watches left; then `OSError`, and polling remains.
"""

from __future__ import annotations

import ctypes
import os
import sys

_IN_MODIFY = 0x2
_IN_NONBLOCK = 0o4000
_IN_CLOEXEC = 0o2000000
_ENOUGH = 65536


class Inotify:
    """A descriptor that is readable when the watched file was written to."""

    def __init__(self) -> None:
        if not sys.platform.startswith("linux"):
            raise OSError(f"there is no inotify on {sys.platform}")
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._checked(self._libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC))

    def watch(self, path: str) -> None:
        """Watch this file from now on, in addition to what was watched before."""
        self._checked(self._libc.inotify_add_watch(self.fd, os.fsencode(path), _IN_MODIFY))

    def drain(self) -> None:
        """Take all news. What they say is not of interest: there is one file and one kind."""
        try:
            while len(os.read(self.fd, _ENOUGH)) > _ENOUGH // 2:
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def _checked(self, answer: int) -> int:
        if answer < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return answer
