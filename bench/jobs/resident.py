"""Resident memory of this process."""

import resource
import sys


def resident_bytes() -> int:
    """Now; where there is no /proc, its peak, which is the same while memory only grows."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()
    except FileNotFoundError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
