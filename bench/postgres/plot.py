"""The figures of `capacity` as four small line charts in one SVG file, no library needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ..chart import FLOOR_LINE, OTHERS, OURS, STYLE, text
from .figures import Capacity

WIDTH, HEIGHT = 380, 240
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 44, 40
STEPS = 4

Point = tuple[float, float]


class Line(NamedTuple):
    """What is drawn in one colour; `dashed` is computed and not measured."""

    name: str
    points: Sequence[Point]
    colour: str = OURS
    dashed: bool = False


class Panel(NamedTuple):
    """A chart: both axes begin at nothing, or, for `x`, the smallest power of ten or two."""

    title: str
    x_name: str
    lines: Sequence[Line]
    x_ticks: Sequence[float]


def panels(capacity: Capacity) -> list[Panel]:
    """What the page shows."""
    depths, crews, costs, rounds = capacity.depths, capacity.crews, capacity.costs, capacity.rounds
    model = capacity.model
    batches = [
        float(costs[0].batch * (costs[-1].batch / costs[0].batch) ** (step / 20)) for step in range(21)
    ]
    measured = [(float(each.workers), each.rate) for each in crews]
    bound = [
        (float(each.workers), capacity.cores * 1e6 / (each.server_us + each.worker_us)) for each in crews
    ]
    return [
        Panel(
            "A claim of 100, ms",
            "queued jobs",
            [Line("median", [(each.queued, each.claim_ms) for each in depths])],
            [each.queued for each in depths],
        ),
        Panel(
            f"Jobs per second, {capacity.cores} cores for everything",
            "worker processes",
            [Line("measured", measured), Line("all of the CPU", bound, FLOOR_LINE, True)],
            [each.workers for each in crews],
        ),
        Panel(
            "CPU time of the server for a job, µs",
            "jobs in a batch",
            [
                Line("measured", [(each.batch, each.whole_us) for each in costs]),
                Line("model", [(batch, model.cost_us(batch)) for batch in batches], FLOOR_LINE, True),
            ],
            [each.batch for each in costs],
        ),
        Panel(
            "Table and indexes after pruning, MB",
            "jobs that came and went",
            [Line("size", [(each.jobs, each.bytes / 1e6) for each in rounds], OTHERS)],
            [each.jobs for each in rounds],
        ),
    ]


def shown(value: float) -> str:
    """A number as an axis shows it."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def rounded_up(value: float) -> float:
    """The next of 1, 2, 2.5, 5, 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(max(value, 1e-9)))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value * 0.999)


def drawn(panel: Panel, left: float, top: float) -> list[str]:
    """One chart, its upper left corner there."""
    highest = rounded_up(max(y for line in panel.lines for _, y in line.points))
    low, high = math.log(panel.x_ticks[0]), math.log(max(panel.x_ticks[-1], panel.x_ticks[0] + 1e-9))
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(point: Point) -> Point:
        across = (math.log(point[0]) - low) / ((high - low) or 1.0)
        return left + LEFT + across * width, top + TOP + (1 - point[1] / highest) * height

    parts = [text(left + LEFT, top + 16, panel.title, "title")]
    for step in range(STEPS + 1):
        _, y = place((panel.x_ticks[0], highest * step / STEPS))
        x = left + LEFT
        parts.append(f'<line x1="{x}" y1="{y:.1f}" x2="{x + width}" y2="{y:.1f}" stroke="#e4e7eb"/>')
        parts.append(text(x - 8, y + 4, shown(highest * step / STEPS), anchor="end"))
    for tick in panel.x_ticks:
        x, _ = place((tick, 0.0))
        parts.append(text(x, top + HEIGHT - BOTTOM + 16, shown(tick), anchor="middle"))
    parts.append(text(left + LEFT + width / 2, top + HEIGHT - 6, panel.x_name, anchor="middle"))
    for number, line in enumerate(panel.lines):
        places = [place(point) for point in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        dash = ' stroke-dasharray="4 3"' if line.dashed else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{line.colour}" stroke-width="2"{dash}/>')
        if not line.dashed:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{line.colour}"/>' for x, y in places]
        if len(panel.lines) > 1:
            x, y = left + LEFT + width, top + 30 + 14 * number
            parts.append(f'<rect x="{x - 118}" y="{y - 8}" width="12" height="4" fill="{line.colour}"/>')
            parts.append(text(x - 100, y - 2, line.name))
    return parts


def draw(capacity: Capacity) -> str:
    """All charts, two beside each other."""
    made = panels(capacity)
    parts: list[str] = []
    for number, panel in enumerate(made):
        parts += drawn(panel, number % 2 * WIDTH, number // 2 * HEIGHT)
    width, height = 2 * WIDTH, (len(made) + 1) // 2 * HEIGHT
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    ground = '<rect width="100%" height="100%" fill="white"/>'
    return "\n".join([head, f"<style>{STYLE}</style>", ground, *parts, "</svg>", ""])
