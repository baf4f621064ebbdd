"""What the exit guard does to a process that clings to life, or no longer does. Chosen by name."""

import logging
import os
import sys
import threading

from lastcall._core._exit import ExitGuard

SOON, LATER, NEVER = 0.2, 0.6, 3600.0

guard = ExitGuard()


def cling() -> None:
    """Wait for ever."""
    threading.Event().wait()


def live_on(seconds: float) -> None:
    """Be there for so long, and say so."""
    threading.Event().wait(seconds)
    print("alive", flush=True)


def armed() -> None:
    guard.arm(SOON, 42, "it clings")
    cling()


def disarmed() -> None:
    guard.arm(SOON, 42, "it clings")
    guard.disarm()
    live_on(2 * SOON)


def rearmed_later() -> None:
    guard.arm(SOON, 42, "the first time")
    guard.arm(NEVER, 43, "the second time")
    live_on(2 * SOON)


def rearmed_sooner() -> None:
    guard.arm(NEVER, 42, "the first time")
    guard.arm(SOON, 43, "the second time")
    cling()


def disarmed_before_armed() -> None:
    guard.arm(SOON, 42, "the first time")
    guard.disarm()
    guard.arm(LATER, 43, "the second time")
    live_on(SOON)
    cling()


def disarmed_before_armed_for_ever() -> None:
    guard.disarm()
    guard.arm(NEVER, 42, "much later")
    live_on(SOON)


def flushes() -> None:
    sys.stdout.write("buffered")
    guard.arm(SOON, 42, "it clings")
    cling()


def stuck_pipe() -> None:
    """Nobody reads stderr any more, and it is full: what the guard has to say does not get through."""
    os.set_blocking(2, True)
    guard.arm(SOON, 42, "it clings")
    while True:
        os.write(2, b"x" * 65536)


def at_exit() -> None:
    guard.arm(NEVER, 42, "much later")
    sys.exit(3)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    globals()[sys.argv[1]]()
