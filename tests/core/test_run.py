"""lastcall.run: real processes and real signals; every program ends, on time, with an honest exit code."""

import asyncio
import signal
import subprocess
import sys
import threading

import pytest

import lastcall
from lastcall import NotACoroutine, TaskManager
from tests.support.loops import why_missing
from tests.support.processes import Program

LOOPS = ["asyncio", "uvloop"]
each_loop = pytest.mark.parametrize("loop", LOOPS)
UNWANTED = (
    "Task was destroyed",
    "never awaited",
    "KeyboardInterrupt",
    "ResourceWarning",
    "Exception ignored",
)


def run(name: str, loop: str = "asyncio", *more: str) -> Program:
    if (missing := why_missing(loop)) is not None:
        pytest.skip(missing)
    return Program("under_run", name, loop, *more)


def unwanted(program: Program) -> list[str]:
    return [word for word in UNWANTED if word in program.errors]


# --- signals ---


@each_loop
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(loop: str, signum: signal.Signals) -> None:
    """Task and body are told through current_shutdown(), end, and the process exits with 0."""
    with run("drains", loop) as program:
        program.expect("ready")
        program.send(signum)
        assert program.wait() == 0
        assert sorted(program.lines[1:3]) == ["body was told: shutdown", "task was told: shutdown"]
        assert program.lines[3:] == ["drained, clean: True", "returned None"]
        assert unwanted(program) == [] and "Traceback" not in program.errors


@each_loop
def test_what_was_cut_off_makes_exit_code_1(loop: str) -> None:
    """A task that ignores the stop is cancelled at the deadline; the exit code says that work was lost."""
    with run("cut_off", loop) as program:
        program.expect("ready")
        program.send(signal.SIGTERM)
        assert program.wait() == 1
        assert "'deaf'" in program.errors and unwanted(program) == []


@each_loop
def test_a_body_that_ignores_the_stop_is_cancelled_at_the_deadline(loop: str) -> None:
    """The block's own body is work like any other."""
    with run("body_ignores", loop) as program:
        program.expect("ready")
        program.send(signal.SIGTERM)
        assert program.wait() == 1
        assert program.lines == ["ready", "body was cancelled"]
        assert unwanted(program) == [] and "Traceback" not in program.errors


@each_loop
def test_a_second_ctrl_c_ends_a_blocked_loop(loop: str) -> None:
    """A coroutine that never awaits blocks the loop, so that the first Ctrl-C is heard by nobody."""
    with run("blocked", loop) as program:
        program.expect("ready")
        assert any(program.ends_after(signal.SIGINT, seconds=0.5) for _ in range(40))
        assert program.wait() != 0


@each_loop
def test_a_second_signal_forces(loop: str) -> None:
    """The first Ctrl-C drains for a minute; a later one ends that at once, with 128 + 2."""
    with run("slow", loop) as program:
        program.expect("ready")
        program.send(signal.SIGINT)
        program.expect("draining")
        code = _insist_until_it_ends(program, signal.SIGINT)
        assert code == 128 + signal.SIGINT
        assert "forced" in program.errors and unwanted(program) == []


def test_a_double_signal_is_one_request() -> None:
    """Both a shell and a supervisor pass the Ctrl-C on: two within the window are one, and nothing is forced."""
    with run("ends_on_request") as program:
        program.expect("ready")
        program.send(signal.SIGINT)
        program.send(signal.SIGINT)
        program.expect("told")
        program.tell("end")
        assert program.wait() == 0
        assert "forced: False" in program.lines


@each_loop
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_without_a_manager_main_is_cancelled(loop: str, signum: signal.Signals) -> None:
    """Nothing to drain: main() is cancelled, cleans up, and the exit code is the signal's."""
    with run("no_manager", loop) as program:
        program.expect("ready")
        program.send(signum)
        assert program.wait() == 128 + signum
        assert program.lines == ["ready", "main cleans up"]
        assert unwanted(program) == [] and "Traceback" not in program.errors


def test_a_manager_that_is_over_does_not_hide_the_signal() -> None:
    """A manager closed well before the signal: main() was cut off all the same, and the exit code says so."""
    with run("manager_is_over") as program:
        program.expect("ready")
        program.send(signal.SIGTERM)
        assert program.wait() == 128 + signal.SIGTERM


def test_nested_managers_all_hear_of_it() -> None:
    """Both managers' tasks are told; the inner one closes first."""
    with run("nested") as program:
        program.expect("ready")
        program.send(signal.SIGTERM)
        assert program.wait() == 0
        said = program.lines
        assert {"inner task was told: shutdown", "outer task was told: shutdown"} <= set(said)
        assert said.index("inner closed") < said.index("outer closed") < said.index("done")


def test_a_manager_opened_after_the_signal_is_told_at_once() -> None:
    """main() goes on to its next phase after the signal: that one is told as it opens."""
    with run("opens_another") as program:
        program.expect("ready")
        program.send(signal.SIGTERM)
        assert program.wait() == 0
        assert "the second is not ready: True" in program.lines


def test_the_body_may_wait_for_the_shutdown_itself() -> None:
    """`await manager.shutdown()` in the block: the shutdown does not wait for the body that waits for it."""
    with run("body_waits_for_shutdown") as program:
        assert program.wait() == 0
        assert "clean: True" in program.lines


# --- main's own end ---


@each_loop
def test_the_result_is_returned(loop: str) -> None:
    """What main() returns is what run() returns."""
    with run("returns", loop) as program:
        assert program.wait() == 0
        assert program.lines == ["returned 'the result'"] and program.errors.count("ERROR") == 0


@each_loop
def test_an_exception_is_a_traceback_and_code_1(loop: str) -> None:
    """An error in main() reaches the interpreter after the drain."""
    with run("fails", loop) as program:
        assert program.wait() == 1
        assert "LookupError: no such row" in program.errors and unwanted(program) == []
        assert "task was told: shutdown" in program.lines


@each_loop
def test_system_exit_passes(loop: str) -> None:
    """sys.exit(7) in main() drains and exits with 7."""
    with run("exits", loop) as program:
        assert program.wait() == 7
        assert "Traceback" not in program.errors and unwanted(program) == []


@each_loop
def test_generators_are_closed(loop: str) -> None:
    """An async generator left half way runs its `finally` before the loop closes."""
    with run("generator", loop) as program:
        assert program.wait() == 0
        assert program.lines == ["main returns", "generator closed", "returned None"]
        assert unwanted(program) == []


@each_loop
def test_a_generator_that_will_not_close_is_bounded_and_named(loop: str) -> None:
    """Its `finally` never ends; run() returns all the same and says where it stands."""
    with run("stubborn_generator", loop, "impatient") as program:
        assert program.wait() == 0
        assert program.lines[-1] == "returned None"
        assert "in stubborn" in program.errors and unwanted(program) == []


@each_loop
def test_idle_threads_of_asyncio_do_not_look_stuck(loop: str) -> None:
    """main() used asyncio.to_thread and returned; the program goes on after run() as long as it likes."""
    with run("to_thread_returns", loop, "linger") as program:
        program.expect("returned 'the result'")
        with pytest.raises(AssertionError, match="still runs"):
            program.wait(2)  # longer than the guard gives what clings
        program.tell("end")
        assert program.wait() == 0
        assert "went on after run()" in program.lines


# --- stubborn work ---


@each_loop
@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("stubborn_task", "in stubborn"),
        ("stuck_thread", "stuck"),
        ("endless_finally", "work"),
        ("hanging_resource", "hangs_here"),
    ],
)
def test_stubborn_work_is_named_and_the_process_ends(loop: str, name: str, named: str) -> None:
    """A swallowed cancel, a stuck thread, an endless `finally`, a resource that will not close: code 1, in time."""
    with run(name, loop) as program:
        program.expect("ready")
        program.send(signal.SIGTERM)
        assert program.wait() == 1
        assert named in program.errors
        assert unwanted(program) == [] and "Traceback" not in program.errors


@each_loop
def test_a_raising_done_callback_is_reported_and_harms_nobody(loop: str) -> None:
    """The loop reports it; the drain is clean."""
    with run("raising_callback", loop) as program:
        program.expect("ready")
        program.send(signal.SIGTERM)
        assert program.wait() == 0
        assert "in a done-callback" in program.errors


@each_loop
def test_a_stuck_to_thread_thread_does_not_keep_the_process(loop: str) -> None:
    """A thread of asyncio's own executor never returns: asyncio.run would hang, and so would the interpreter."""
    with run("stuck_to_thread", loop, "impatient") as program:
        program.expect("ready")
        program.send(signal.SIGTERM)
        assert program.wait() == 1
        assert unwanted(program) == []


@each_loop
def test_an_untracked_stubborn_task_is_bounded_and_named(loop: str) -> None:
    """A task of no manager swallows its cancel; it is named with its stack and left."""
    with run("untracked_stubborn", loop, "impatient") as program:
        program.expect("ready")
        program.send(signal.SIGTERM)
        program.wait()
        assert "belongs to no manager" in program.errors and "in stubborn" in program.errors
        assert unwanted(program) == []


@each_loop
def test_a_body_that_swallows_its_cancel_is_ended_by_the_guard(loop: str) -> None:
    """Nothing inside can end it; the guard does, after the plan and the epilogue, and says so."""
    with run("stubborn_body", loop, "impatient") as program:
        program.expect("ready")
        program.send(signal.SIGTERM)
        assert program.wait() == 1
        assert "main() has still not returned" in program.errors


@pytest.mark.parametrize(
    "name", ["drains", "stubborn_task", "stuck_thread", "endless_finally", "hanging_resource"]
)
def test_under_plain_asyncio_run_too(name: str) -> None:
    """asyncio.run with a manager: whatever was given up does not keep it from returning."""
    with Program("under_asyncio", name) as program:
        assert program.wait() == 0
        assert program.lines[-1] == "asyncio.run returned"
        assert unwanted(program) == []


def test_control_asyncio_run_alone_would_hang() -> None:
    """The control: the same stubborn task without lastcall keeps asyncio.run for ever."""
    source = (
        "import asyncio\n"
        "async def stubborn():\n"
        "    while True:\n"
        "        try: await asyncio.sleep(3600)\n"
        "        except asyncio.CancelledError: print('swallowed', flush=True)\n"
        "async def main():\n"
        "    task = asyncio.create_task(stubborn()); await asyncio.sleep(0)\n"
        "asyncio.run(main())\n"
    )
    process = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "swallowed\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


# --- misuse ---


def test_not_a_coroutine() -> None:
    """`run(main)` in place of `run(main())`: a clear error."""

    async def main() -> None: ...

    with pytest.raises(NotACoroutine, match="main"):
        lastcall.run(main)  # type: ignore[arg-type]


async def test_inside_a_running_loop() -> None:
    """run() in a coroutine: an error, and no coroutine left un-awaited."""

    async def main() -> None: ...

    with pytest.raises(RuntimeError, match="running event loop"):
        lastcall.run(main())


def test_off_the_main_thread(loop_factory: object) -> None:
    """In a thread it runs, without signals; the handlers of the process are untouched."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    results: list[object] = []

    async def main() -> str:
        async with TaskManager() as manager:
            return await manager.create_task(asyncio.sleep(0, "in a thread"))

    thread = threading.Thread(target=lambda: results.append(lastcall.run(main(), loop_factory=loop_factory)))  # type: ignore[arg-type]
    thread.start()
    thread.join(30)
    assert results == ["in a thread"]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_it_hands_the_signals_back() -> None:
    """After run() the process' handlers are what they were."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    lastcall.run(asyncio.sleep(0))
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def _insist_until_it_ends(program: Program, signum: signal.Signals) -> int:
    """Press Ctrl-C again and again, as people do; how soon a repeat counts as one is the program's own business."""
    for _ in range(100):
        try:
            return program.wait(0.3)
        except AssertionError:
            program.send(signum)
    raise AssertionError("a hundred signals did not end it")
