"""The deploy test: a signal in the middle of a job of thirty steps of a second; what becomes of the job.

Every step writes a line into a ledger outside of the system before it waits: the side effect that is counted. The
signal comes 3.3 seconds after the first line, and not before the second line; TERM goes to the worker's own process,
as a supervisor sends it, KILL to all of its tree. At 8 seconds the old worker is killed if it is still there. In the
variant `restart` a new one starts then; in `second` another worker is there all the time. Scenarios only sleep, so
they run side by side.
"""

import signal
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .catalog import Setting
from .marks import Line, read_ledger
from .report import aligned, headline, problems, progress
from .run import ours_problem
from .servers import Servers
from .verdict import Facts, Reading, read
from .workers import ContenderFailed, Place, Worker, submit

SIGNALS = ("TERM", "KILL")
VARIANTS = ("restart", "second")
BOOT_SECONDS = 60
PAUSE_SECONDS = 0.01
LONG_PAUSE_SECONDS = 0.1
"""While watching for minutes: the ledger has its own time stamps."""


@dataclass(frozen=True)
class Timing:
    """Seconds after the first step's line, but for `watch_seconds`: how long to wait for the job to begin again."""

    steps: int = 30
    step_seconds: float = 1.0
    signal_at: float = 3.3
    restart_at: float = 8.0
    killed_at: float = 8.0
    watch_seconds: float = 120.0
    lease_seconds: float = 15.0
    between_starts_seconds: float = 2.0

    @property
    def rest_of_step(self) -> float:
        """How long the step in flight has to go when the signal comes."""
        return self.step_seconds - self.signal_at % self.step_seconds


FULL = Timing()
# The steps outlast the signal by seconds and the worker may take its time to end: a busy machine is no answer.
QUICK = Timing(
    steps=25,
    step_seconds=0.2,
    signal_at=0.5,
    restart_at=1.5,
    killed_at=30.0,
    watch_seconds=30.0,
    between_starts_seconds=0.0,
)


@dataclass(frozen=True)
class Scenario:
    setting: Setting
    signal: str
    variant: str
    timing: Timing

    @property
    def name(self) -> str:
        return f"{self.setting.name} {self.signal} {self.variant}"


@dataclass(frozen=True)
class Outcome:
    """A line of the table. One that could not be measured has a `problem`; `failed` if it could have been."""

    scenario: str
    signal: str
    variant: str
    durability: str
    note: str = ""
    exit_seconds: float | None = None
    reading: Reading | None = None
    goal: str = ""
    problem: str = ""
    failed: bool = False


class Stopped(Exception):
    """The run was interrupted."""


def scenarios(
    settings: Sequence[Setting], signals: Sequence[str], variants: Sequence[str], timing: Timing
) -> list[Scenario]:
    return [
        Scenario(setting, sig, variant, timing)
        for setting in settings
        for sig in SIGNALS
        for variant in VARIANTS
        if sig in signals and variant in variants
    ]


def run_all(
    listed: Sequence[Scenario], peers: Path | None, servers: Servers, *, parallel: int
) -> list[Outcome]:
    """All of them, `parallel` side by side, in the order given."""
    stopping = threading.Event()
    one_at_a_time = threading.Lock()

    def one(scenario: Scenario) -> Outcome:
        # Workers that all boot at once would measure each other's imports.
        with one_at_a_time:
            time.sleep(scenario.timing.between_starts_seconds)
        return Play(scenario, peers, servers, stopping).outcome()

    with ThreadPoolExecutor(max_workers=parallel) as pool:
        try:
            return list(pool.map(one, listed))
        except BaseException:
            stopping.set()
            pool.shutdown(cancel_futures=True)
            raise


class Play:
    """One scenario, from its first process to its last."""

    def __init__(
        self, scenario: Scenario, peers: Path | None, servers: Servers, stopping: threading.Event
    ) -> None:
        self.scenario = scenario
        self.timing = scenario.timing
        self.peers = peers
        self.servers = servers
        self.stopping = stopping
        self.workers: list[Worker] = []

    def outcome(self) -> Outcome:
        setting = self.scenario.setting
        named = (
            setting.name,
            self.scenario.signal,
            self.scenario.variant,
            setting.durability,
            setting.worker,
        )
        problem = ours_problem() if setting.ours else setting.problem(self.peers)
        if problem:
            return Outcome(*named, problem=problem)
        progress(f"deploy      {self.scenario.name}")
        with tempfile.TemporaryDirectory(prefix="bench-deploy-") as folder:
            self.place = Place(Path(folder), self.servers.new_url(setting))
            try:
                exit_seconds, reading = self.play()
            except ContenderFailed as error:
                return Outcome(*named, problem=str(error), failed=True)
            finally:
                for worker in self.workers:
                    worker.kill()
        goal = goal_of(self.scenario, reading) if setting.ours else ""
        return Outcome(*named, exit_seconds=exit_seconds, reading=reading, goal=goal)

    def play(self) -> tuple[float | None, Reading]:
        second = self.scenario.variant == "second"
        submit(self.scenario.setting, self.peers, self.place, "long", **self.steps())
        self.start("first")
        if second:
            self.start("second")
        self.wait(lambda: bool(self.ledger()) or all(worker.ended for worker in self.workers), BOOT_SECONDS)
        if not self.ledger():
            raise ContenderFailed(f"no step began; {self.workers[0].why()}")
        first = self.ledger()[0]
        old = next(worker for worker in self.workers if worker.session == first.worker)

        self.wait_for_time(first.at + self.timing.signal_at)
        # Until the second step has begun, nobody can tell whether the first was remembered.
        self.wait(lambda: len(self.ledger()) > 1, BOOT_SECONDS)
        signalled_at = time.monotonic()
        self.send(old)
        exited = self.wait(lambda: old.ended, first.at + self.timing.killed_at - time.monotonic())
        exit_seconds = time.monotonic() - signalled_at if exited else None
        if not exited:
            old.kill()
        if not second:
            self.wait_for_time(first.at + self.timing.restart_at)
            self.start("first")
        again_from = signalled_at if second else self.workers[-1].started_at
        self.watch(old)
        facts = Facts(old.session, signalled_at, again_from, self.timing.watch_seconds)
        return exit_seconds, read(self.ledger(), facts)

    def watch(self, old: Worker) -> None:
        """Until another worker has gone on and the job is done, or it takes too long."""
        if self.wait(lambda: self.went_on(old), self.timing.watch_seconds, LONG_PAUSE_SECONDS):
            whole = self.timing.steps * self.timing.step_seconds
            self.wait(self.done, 1.5 * whole + 10, LONG_PAUSE_SECONDS)

    def went_on(self, old: Worker) -> bool:
        return any(line.worker != old.session or line.what == "done" for line in self.ledger())

    def done(self) -> bool:
        return any(line.what == "done" for line in self.ledger())

    def send(self, worker: Worker) -> None:
        if self.scenario.signal == "KILL":
            worker.kill()
        else:
            worker.process.send_signal(signal.SIGTERM)

    def start(self, name: str) -> None:
        self.workers.append(Worker(self.scenario.setting, self.peers, self.place, name, **self.steps()))

    def steps(self) -> dict[str, str]:
        return {
            "BENCH_STEPS": str(self.timing.steps),
            "BENCH_STEP_SECONDS": str(self.timing.step_seconds),
        }

    def ledger(self) -> list[Line]:
        return read_ledger(self.place.folder)

    def wait(self, condition: Callable[[], bool], seconds: float, pause: float = PAUSE_SECONDS) -> bool:
        deadline = time.monotonic() + seconds
        while not condition():
            if self.stopping.is_set():
                raise Stopped
            if time.monotonic() > deadline:
                return False
            time.sleep(pause)
        return True

    def wait_for_time(self, at: float) -> None:
        self.wait(lambda: time.monotonic() >= at, at - time.monotonic() + 1)


def goal_of(scenario: Scenario, reading: Reading) -> str:
    """What ours should reach, and whether it did."""
    timing = scenario.timing
    if scenario.signal == "TERM":
        # With a new worker the step in flight has long ended when that worker starts.
        seconds = 1.0 if scenario.variant == "restart" else timing.rest_of_step + 1
        twice = 0
    else:
        seconds = 2.0 if scenario.variant == "restart" else timing.lease_seconds + 1
        twice = 1
    began = reading.began_again_seconds
    met = began is not None and began <= seconds and reading.steps_twice <= twice and reading.finished
    return f"≤ {seconds:.1f} s, {twice} twice: {'met' if met else 'NOT MET'}"


HEAD = (
    *("scenario", "signal", "variant", "durability", "exit after s", "job told", "steps done before"),
    *("began again after s", "from step", "steps run twice", "finished", "verdict", "goal", "note"),
)
NUMERIC = frozenset({6, 7, 8, 9})


def cells(outcome: Outcome) -> list[str]:
    reading = outcome.reading
    assert reading is not None
    began = "-" if reading.began_again_seconds is None else f"{reading.began_again_seconds:.2f}"
    return [
        outcome.scenario,
        outcome.signal,
        outcome.variant,
        outcome.durability,
        "alive, kill -9" if outcome.exit_seconds is None else f"{outcome.exit_seconds:.2f}",
        reading.told,
        str(reading.steps_before),
        began,
        "-" if reading.from_step is None else str(reading.from_step),
        str(reading.steps_twice),
        "yes" if reading.finished else "no",
        reading.verdict,
        outcome.goal,
        outcome.note,
    ]


def table(found: Sequence[Outcome]) -> str:
    """The lines of `peers.md`'s table, and how the new worker's time is counted."""
    measured = [outcome for outcome in found if outcome.reading is not None]
    out = [
        headline(),
        "",
        "deploy | began again: from the start of the new worker (restart), from the signal (second)",
    ]
    if measured:
        out += aligned([HEAD, *(cells(outcome) for outcome in measured)], NUMERIC)
    out += problems((outcome.scenario, outcome.problem) for outcome in found if outcome.problem)
    return "\n".join(out)
