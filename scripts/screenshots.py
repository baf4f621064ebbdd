"""Take the pictures of the dashboard in docs/images anew: `python scripts/screenshots.py [--seconds 130]`.

Starts the service of tests/dashboard/bar.py, gives it work for so long (the plots show what was while somebody looked),
and photographs it with a headless Chromium. With `--fontconfig FILE` the browser takes its fonts from there; those
in the repository are set in Inter (Debian: fonts-inter), for which the page asks first.
"""

from __future__ import annotations

import argparse
import math
import random
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.dashboard.conftest import Bar, opened  # noqa: E402
from tests.examples.browser import browser, find_browser  # noqa: E402
from tests.support.visitor import Visitor  # noqa: E402

IMAGES = ROOT / "docs" / "images"
MOST_BYTES = 150_000
CUSTOMERS = ("Falstaff & Sons", "Bardolph", "Mistress Quickly", "Pistol Ltd")


def work(bar: Bar, visitor: Visitor, seconds: float) -> None:
    """Waves of short jobs, a few long ones, some that fail, some that wait for a person."""
    chance = random.Random(7)
    begin = time.monotonic()
    while (passed := time.monotonic() - begin) < seconds:
        bar.order("ping", many=2 + round(6 + 5 * math.sin(passed / 9) + chance.random() * 3))
        if chance.random() < 0.35:
            bar.order("analyse", folder="docs/", files=4, seconds=0.05 + 0.25 * chance.random())
        if chance.random() < 0.04:
            bar.order("invoice", customer=chance.choice(CUSTOMERS))
        if chance.random() < 0.02:
            bar.order(
                "approve", amount=round(900 * chance.random(), 2), key=f"order-{chance.randint(1000, 9999)}"
            )
        visitor.complaints()  # what the browser tells meanwhile has to be read
        time.sleep(0.5)


def end_one_before(folder: Path) -> None:
    """A process that has ended already: its report is in the store."""
    with opened(folder) as bar:
        bar.ask("POST", "/tasks/2?name=guest&seconds=1.2")
        bar.program.signal(signal.SIGTERM)
        bar.program.wait()


def take(visitor: Visitor, name: str) -> None:
    path = IMAGES / name
    visitor.photograph(path)
    size = path.stat().st_size
    print(f"{path.relative_to(ROOT)}: {size / 1000:.0f} kB")
    if size > MOST_BYTES:
        raise SystemExit(f"{path.name} has more than {MOST_BYTES} bytes; make the picture smaller")


def take_all(bar: Bar, visitor: Visitor, seconds: float) -> None:
    visitor.screen(1240, 830)
    visitor.prefer(color_scheme="light", reduced_motion="reduce")
    visitor.visit(bar.url)
    for question in ("What is on tap?", "And the kitchen?"):
        bar.order("answer", question=question)
    bar.ask("POST", "/tasks/3?name=guest&seconds=9")
    bar.ask("POST", "/tasks/1?name=regular&seconds=14")
    work(bar, visitor, seconds)
    id = bar.order("analyse", folder="docs/", files=9, seconds=1.0)
    bar.order("analyse", folder="src/", files=9, seconds=1.2)
    take(visitor, "dashboard.png")

    visitor.prefer(color_scheme="dark", reduced_motion="reduce")
    visitor.screen(390, 780, scale=1.5)
    visitor.value("scrollTo(0, 0)")
    visitor.until("innerWidth === 390")
    take(visitor, "dashboard-phone.png")

    visitor.screen(1240, 700)
    visitor.value(f"location.hash = '#/jobs/{id}'")
    visitor.until("document.querySelectorAll('.lanes .step').length > 4")
    take(visitor, "dashboard-job.png")

    visitor.prefer(color_scheme="light", reduced_motion="reduce")
    visitor.screen(1240, 680)
    visitor.value("location.hash = '#/shutdown'")
    bar.program.signal(signal.SIGTERM)
    visitor.until("parseFloat(document.querySelector('.left').innerText) < 19")
    visitor.see("Clean")
    take(visitor, "dashboard-drain.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seconds", type=float, default=130.0, help="how long to work before the first picture"
    )
    parser.add_argument("--fontconfig", help="a fonts.conf for the browser")
    chosen = parser.parse_args()
    path = find_browser()
    if path is None:
        raise SystemExit("no Chromium is installed (Debian: apt-get install chromium)")
    IMAGES.mkdir(exist_ok=True)
    env = {} if chosen.fontconfig is None else {"FONTCONFIG_FILE": chosen.fontconfig}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        end_one_before(folder)
        bar = stack.enter_context(opened(folder))
        page = stack.enter_context(browser(path, folder, **env))
        take_all(bar, Visitor(page), chosen.seconds)


if __name__ == "__main__":
    main()
