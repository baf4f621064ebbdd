"""The figures of `capacity`, the model that is fitted to them, and their tables. Pure, so that it can be tested."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..jobs.report import aligned


@dataclass(frozen=True)
class Cost:
    """CPU time of the server for a job, in µs, when so many share a statement."""

    batch: int
    submit_us: float
    claim_us: float
    finish_us: float

    @property
    def whole_us(self) -> float:
        return self.submit_us + self.claim_us + self.finish_us


@dataclass(frozen=True)
class Depth:
    """With so many jobs queued."""

    queued: int
    claim_ms: float
    claim_worst_ms: float
    claim_buffers: int
    rate: float
    table_bytes: int
    index_bytes: int


@dataclass(frozen=True)
class Crew:
    """With so many worker processes: jobs per second, CPU time of the server and of the workers for a job, in µs."""

    workers: int
    rate: float
    server_us: float
    worker_us: float


@dataclass(frozen=True)
class Round:
    """After so many jobs have been submitted, completed and pruned."""

    jobs: int
    bytes: int
    dead: int


@dataclass(frozen=True)
class Held:
    """While a transaction of somebody else's was open that had begun before so many jobs ended."""

    ended: int
    claim_ms: float
    claim_buffers: int


@dataclass(frozen=True)
class Model:
    """A job costs the server `each_us`, and its share of what each of its three statements costs, `statements_us`."""

    each_us: float
    statements_us: float

    def cost_us(self, batch: float) -> float:
        return self.each_us + self.statements_us / batch

    def per_second(self, batch: float, cores: float) -> float:
        """What a server with so many cores for itself carries, if nothing else stops it."""
        return cores * 1e6 / self.cost_us(batch)


@dataclass(frozen=True)
class Capacity:
    """All figures of a run."""

    server: str
    cores: int
    model: Model
    costs: list[Cost]
    depths: list[Depth]
    crews: list[Crew]
    rounds: list[Round]
    held: list[Held]


def fitted(costs: Sequence[Cost]) -> Model:
    """Least squares over the relative errors of `each + statements / batch`, neither below zero."""
    xs, ys = [1 / cost.batch for cost in costs], [cost.whole_us for cost in costs]
    weights = [1 / y**2 for y in ys]
    total = sum(weights)
    x_mean = sum(w * x for w, x in zip(weights, xs, strict=True)) / total
    y_mean = sum(w * y for w, y in zip(weights, ys, strict=True)) / total
    spread = sum(w * (x - x_mean) ** 2 for w, x in zip(weights, xs, strict=True))
    slope = sum(w * (x - x_mean) * (y - y_mean) for w, x, y in zip(weights, xs, ys, strict=True)) / spread
    slope = max(0.0, slope)
    return Model(max(0.0, y_mean - slope * x_mean), slope)


BEGIN, END = "<!-- figures: written by the command below -->", "<!-- end of figures -->"


def put_into(page: str, capacity: Capacity, note: str) -> str:
    """The page with these figures in place of those that it had. Raises `ValueError` for a page without their place."""
    before, found, rest = page.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        raise ValueError(f"the page has no place for figures, between {BEGIN} and {END}")
    heading = f"{note}\n\n" if note else ""
    return f"{before}{BEGIN}\n\n{heading}```\n{table(capacity)}\n```\n\n{END}{after}"


# --- the tables ----------------------------------------------------------------------------------------


def table(capacity: Capacity) -> str:
    """Every figure, as plain text."""
    out = [f"PostgreSQL {capacity.server}, {capacity.cores} cores shared by the server and the workers"]
    for title, head, lines in _blocks(capacity):
        out += ["", title, *aligned([head, *lines], frozenset(range(len(head))))]
    return "\n".join(out)


def _blocks(capacity: Capacity) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    model = capacity.model
    yield (
        "CPU time of the server for a job, µs",
        ["in a batch", "submit", "claim", "finish", "whole", "model"],
        [
            [f"{each.batch}", f"{each.submit_us:.1f}", f"{each.claim_us:.1f}", f"{each.finish_us:.1f}",
             f"{each.whole_us:.1f}", f"{model.cost_us(each.batch):.1f}"]
            for each in capacity.costs
        ],
    )  # fmt: skip
    cores = (1, 4, 16)
    yield (
        "what the model says a server carries that has so many cores for itself, jobs/s",
        ["in a batch", *(f"{number} core{'s' * (number > 1)}" for number in cores)],
        [
            [f"{each.batch}", *(f"{model.per_second(each.batch, number):,.0f}" for number in cores)]
            for each in capacity.costs
        ],
    )
    yield (
        "queued jobs",
        ["queued", "claim of 100, ms", "worst", "buffers", "jobs/s, one worker", "table B/job", "indexes B/job"],
        [
            [f"{each.queued:,}", f"{each.claim_ms:.2f}", f"{each.claim_worst_ms:.2f}", f"{each.claim_buffers:,}",
             f"{each.rate:,.0f}", f"{each.table_bytes / each.queued:.0f}", f"{each.index_bytes / each.queued:.0f}"]
            for each in capacity.depths
        ],
    )  # fmt: skip
    yield (
        "worker processes",
        ["workers", "jobs/s", "server µs/job", "workers µs/job"],
        [
            [f"{each.workers}", f"{each.rate:,.0f}", f"{each.server_us:.0f}", f"{each.worker_us:.0f}"]
            for each in capacity.crews
        ],
    )
    yield (
        "rounds of jobs that were pruned",
        ["jobs so far", "MB of table and indexes", "dead rows"],
        [[f"{each.jobs:,}", f"{each.bytes / 1e6:.1f}", f"{each.dead:,}"] for each in capacity.rounds],
    )
    yield (
        "behind a transaction that stays open",
        ["jobs ended since", "claim of 100, ms", "buffers"],
        [[f"{each.ended:,}", f"{each.claim_ms:.2f}", f"{each.claim_buffers:,}"] for each in capacity.held],
    )
