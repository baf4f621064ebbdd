"""Draw the state diagrams of the docs from the tables of the code: docs/images/states-*.svg.

python scripts/docs/diagrams.py

What stands in a picture (states, arrows, their words) is the table's; where it stands is written here. A state
without a place or an arrow without a way is an error that names it, and so is a place for what the table does not have.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "images"

sys.path.insert(0, str(ROOT / "src"))

from lastcall._core._state import MANAGER_TRANSITIONS, TaskStatus  # noqa: E402  # found by the line above
from lastcall._core._state import TRANSITIONS as TASK_TRANSITIONS  # noqa: E402
from lastcall.jobs._state import FINAL, Cause, JobStatus  # noqa: E402
from lastcall.jobs._state import TRANSITIONS as JOB_TRANSITIONS  # noqa: E402

BORN = "born"  # the dot where something begins
WIDTH, HEIGHT = 116, 38  # of a state's box

Point = tuple[float, float]
Arrows = Mapping[tuple[str, str], list[str]]


class Way(NamedTuple):
    """How an arrow goes: through `points`, between the boxes' edges; its words at `label`, line by line."""

    points: tuple[Point, ...]
    label: Point | None = None
    anchor: str = "middle"


class Picture(NamedTuple):
    """`states` and `arrows` are the table's, `places` and `ways` the picture's."""

    title: str
    size: tuple[int, int]
    states: tuple[str, ...]
    final: frozenset[str]
    arrows: Arrows
    places: Mapping[str, Point]
    ways: Mapping[tuple[str, str], Way]


def job_arrows() -> dict[tuple[str, str], list[str]]:
    """Each pair of statuses with all its causes; a submission makes one that is due, or not yet."""
    arrows: dict[tuple[str, str], list[str]] = {
        (BORN, JobStatus.SCHEDULED): [Cause.SUBMIT],
        (BORN, JobStatus.QUEUED): [Cause.SUBMIT],
    }
    for before, causes in JOB_TRANSITIONS.items():
        for cause, afters in causes.items():
            for after in afters:
                arrows.setdefault((before, after), []).append(cause)
    return {pair: sorted(causes, key=list(Cause).index) for pair, causes in arrows.items()}


def plain_arrows(table: Mapping[str, frozenset[str]]) -> dict[tuple[str, str], list[str]]:
    """A table without causes."""
    return {(before, after): [] for before, afters in table.items() for after in afters}


def job_picture(arrows: Arrows) -> Picture:
    left, middle, right = 170, 460, 770
    top, centre, bottom = 90, 220, 350
    return Picture(
        "What becomes of a job",
        (900, 475),
        tuple(JobStatus),
        FINAL,
        arrows,
        {
            BORN: (290, 40),
            "scheduled": (left, top),
            "queued": (left, centre),
            "waiting": (left, bottom),
            "running": (middle, centre),
            "completed": (right, top),
            "failed": (right, centre),
            "cancelled": (right, bottom),
        },
        {
            (BORN, "scheduled"): Way(((284, 40), (200, 71)), (247, 42), "end"),
            (BORN, "queued"): Way(((290, 46), (290, 188), (228, 205)), (298, 130), "start"),
            ("scheduled", "queued"): Way(((150, 109), (150, 201)), (145, 159), "end"),
            ("scheduled", "cancelled"): Way(
                ((112, 90), (72, 90), (72, 430), (750, 430), (750, 369)), (450, 426)
            ),
            ("queued", "running"): Way(((228, 212), (402, 212)), (330, 204)),
            ("queued", "cancelled"): Way(
                ((112, 228), (94, 228), (94, 405), (730, 405), (730, 369)), (450, 401)
            ),
            ("running", "scheduled"): Way(((430, 201), (430, 90), (228, 90)), (424, 82), "end"),
            ("running", "queued"): Way(((402, 230), (228, 230)), (315, 247)),
            ("running", "waiting"): Way(((430, 239), (430, 340), (228, 340)), (330, 332)),
            ("running", "completed"): Way(((490, 201), (490, 90), (712, 90)), (600, 82)),
            ("running", "failed"): Way(((518, 220), (712, 220)), (615, 212)),
            ("running", "cancelled"): Way(((490, 239), (490, 340), (712, 340)), (601, 262)),
            ("waiting", "queued"): Way(((150, 331), (150, 239)), (145, 291), "end"),
            ("waiting", "cancelled"): Way(((228, 360), (712, 360)), (330, 377)),
            ("failed", "queued"): Way(
                ((828, 220), (850, 220), (850, 25), (346, 25), (346, 170), (190, 170), (190, 201)), (600, 18)
            ),
            ("cancelled", "queued"): Way(
                ((790, 369), (790, 455), (50, 455), (50, 212), (112, 212)), (450, 451)
            ),
        },
    )


def task_picture(arrows: Arrows) -> Picture:
    return Picture(
        "What becomes of a task",
        (760, 220),
        tuple(TaskStatus),
        frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED}),
        arrows,
        {
            "pending": (110, 70),
            "running": (340, 72),
            "completed": (620, 40),
            "failed": (620, 105),
            "cancelled": (620, 175),
        },
        {
            ("pending", "running"): Way(((168, 70), (282, 70))),
            ("pending", "cancelled"): Way(((110, 89), (110, 180), (562, 180))),
            ("running", "completed"): Way(((398, 60), (500, 60), (500, 40), (562, 40))),
            ("running", "failed"): Way(((398, 76), (480, 76), (480, 105), (562, 105))),
            ("running", "cancelled"): Way(((340, 89), (340, 168), (562, 168))),
        },
    )


def manager_picture(arrows: Arrows) -> Picture:
    return Picture(
        "Where a manager is",
        (860, 210),
        ("new", "open", "notice", "draining", "cancelling", "closing", "closed"),
        frozenset(),
        arrows,
        {
            "new": (90, 60),
            "open": (260, 60),
            "notice": (430, 60),
            "draining": (600, 60),
            "cancelling": (600, 150),
            "closing": (430, 150),
            "closed": (260, 150),
        },
        {
            ("new", "open"): Way(((148, 60), (202, 60))),
            ("open", "notice"): Way(((318, 60), (372, 60))),
            ("open", "draining"): Way(((260, 41), (260, 20), (600, 20), (600, 41))),
            ("notice", "draining"): Way(((488, 60), (542, 60))),
            ("draining", "cancelling"): Way(((600, 79), (600, 131))),
            ("cancelling", "closing"): Way(((542, 150), (488, 150))),
            ("closing", "closed"): Way(((372, 150), (318, 150))),
            ("closed", "open"): Way(((260, 131), (260, 79))),
        },
    )


def pictures() -> dict[str, Picture]:
    """Every picture by the name of its file."""
    return {
        "states-job.svg": job_picture(job_arrows()),
        "states-task.svg": task_picture(plain_arrows(TASK_TRANSITIONS)),
        "states-manager.svg": manager_picture(plain_arrows(MANAGER_TRANSITIONS)),
    }


def draw(picture: Picture) -> str:
    """The picture as SVG. Raises ValueError if the table and the places do not fit each other."""
    _check("a state", {str(state) for state in picture.states}, set(picture.places) - {BORN})
    arrows = {(str(before), str(after)): words for (before, after), words in picture.arrows.items()}
    _check("an arrow", set(arrows), set(picture.ways))
    width, height = picture.size
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(picture.title)}">',
        f"<title>{escape(picture.title)}</title>",
        f"<style>{_STYLE}</style>",
        '<defs><marker id="end" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
        'orient="auto-start-reverse"><path class="head" d="M0 1 10 5 0 9z"/></marker></defs>',
        f'<rect class="card" width="{width}" height="{height}" rx="10"/>',
    ]
    for pair in sorted(arrows):
        parts.append(_arrow(picture.ways[pair]))
    for state in map(str, picture.states):
        parts.append(_box(state, picture.places[state], state in picture.final))
    if BORN in picture.places:
        x, y = picture.places[BORN]
        parts.append(f'<circle class="born" cx="{x}" cy="{y}" r="6"/>')
    for pair in sorted(arrows):
        parts.append(_words(arrows[pair], picture.ways[pair]))
    return "\n".join([*filter(None, parts), "</svg>"]) + "\n"


# As an image it hears of the system's wish for darkness and not of the site's switch: so it brings a card of its own.
_STYLE = (
    ".card{fill:#fff}.box{fill:#eef2f6;stroke:#52606d}.final{fill:#e2f1e6;stroke:#2f6b43}"
    ".line{fill:none;stroke:#52606d;stroke-width:1.4}.head{fill:#52606d}.born{fill:#1f2933}"
    "text{font:13px ui-sans-serif,system-ui,sans-serif;fill:#1f2933}.name{font-weight:600;font-size:14px}"
    ".words{paint-order:stroke;stroke:#fff;stroke-width:4px;stroke-linejoin:round}"
    "@media (prefers-color-scheme:dark){.card{fill:#21262d}.box{fill:#30373f;stroke:#9aa5b1}"
    ".final{fill:#24402d;stroke:#7fbf93}.line{stroke:#9aa5b1}.head{fill:#9aa5b1}.born{fill:#e4e7eb}"
    "text{fill:#e4e7eb}.words{stroke:#21262d}}"
)


def _check(
    what: str, table: set[str] | set[tuple[str, str]], placed: set[str] | set[tuple[str, str]]
) -> None:
    if missing := sorted(map(str, table - placed)):
        raise ValueError(f"{what} of the table has no place in the picture: {', '.join(missing)}")
    if left_over := sorted(map(str, placed - table)):
        raise ValueError(f"the picture has {what} that is not in the table: {', '.join(left_over)}")


def _box(name: str, place: Point, is_final: bool) -> str:
    x, y = place
    kind = "final" if is_final else "box"
    return (
        f'<rect class="{kind}" x="{x - WIDTH / 2:g}" y="{y - HEIGHT / 2:g}" width="{WIDTH}" height="{HEIGHT}" rx="8"/>'
        f'<text class="name" x="{x:g}" y="{y + 5:g}" text-anchor="middle">{escape(name)}</text>'
    )


def _arrow(way: Way) -> str:
    """A line with round corners."""
    points, radius = way.points, 10.0
    path = [f"M{points[0][0]:g} {points[0][1]:g}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        (ax, ay), (bx, by) = _towards(corner, before, radius), _towards(corner, after, radius)
        path.append(f"L{ax:g} {ay:g}Q{corner[0]:g} {corner[1]:g} {bx:g} {by:g}")
    path.append(f"L{points[-1][0]:g} {points[-1][1]:g}")
    return f'<path class="line" marker-end="url(#end)" d="{"".join(path)}"/>'


def _towards(start: Point, end: Point, far: float) -> Point:
    (x, y), (ex, ey) = start, end
    length = max(((ex - x) ** 2 + (ey - y) ** 2) ** 0.5, 1e-9)
    part = min(far / length, 0.5)
    return round(x + (ex - x) * part, 1), round(y + (ey - y) * part, 1)


def _words(words: list[str], way: Way) -> str:
    if not words or way.label is None:
        return ""
    x, y = way.label
    lines = _lines([str(word) for word in words])
    spans = "".join(
        f'<tspan x="{x:g}" dy="{0 if n == 0 else 15}">{escape(line)}</tspan>' for n, line in enumerate(lines)
    )
    return f'<text class="words" x="{x:g}" y="{y:g}" text-anchor="{way.anchor}">{spans}</text>'


def _lines(words: list[str]) -> list[str]:
    """At most three words a line are read at a glance."""
    groups = [words[at : at + 3] for at in range(0, len(words), 3)]
    return [", ".join(group) + ("," if n < len(groups) - 1 else "") for n, group in enumerate(groups)]


if __name__ == "__main__":
    for name, picture in pictures().items():
        (IMAGES / name).write_text(draw(picture), encoding="utf-8")
