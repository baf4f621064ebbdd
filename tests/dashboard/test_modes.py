"""What the page leaves out: buttons where nothing may be changed, jobs where there are none."""

from pathlib import Path

import pytest

from tests.dashboard.conftest import opened
from tests.support.visitor import Visitor

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(90)]

BUTTONS = (
    "[...document.querySelectorAll('main button')].filter(one => one.offsetParent).map(one => one.innerText)"
)


def test_read_only_has_no_buttons_that_act(tmp_path: Path, visitor: Visitor) -> None:
    """The page says that it is read-only, and shows no button whose request would be refused."""
    with opened(tmp_path, READ_ONLY="1") as bar:
        waiting, failed = bar.order("approve", amount=1), bar.order("invoice", customer="Pistol")
        for id in (waiting, failed):
            visitor.visit(f"{bar.url}#/jobs/{id}", "document.querySelector('.facts div')")
            visitor.see("read-only")
            assert visitor.value(BUTTONS) == ["Copy"]
        for place, there in (("", ".rows li"), ("#/shutdown", ".left")):
            visitor.visit(bar.url + place, f"document.querySelector('{there}')")
            visitor.see("read-only")
            assert visitor.value(BUTTONS) == []
        visitor.visit(f"{bar.url}#/tasks")
        visitor.click("watch the till", within="tbody")
        visitor.until("document.querySelector('.facts div')")
        assert visitor.value(BUTTONS) == []
        visitor.leave()


def test_without_jobs_it_says_how_to_have_some(tmp_path: Path, visitor: Visitor) -> None:
    """An app with tasks alone: they are there, and where jobs would be stands what to do; none are asked for."""
    with opened(tmp_path, app="tasks_only") as bar:
        visitor.visit(bar.url)
        visitor.see("No durable jobs here")
        visitor.see("sweep the floor")
        assert "Workers" not in visitor.text("main")
        assert not any("/lastcall/jobs" in url for url in visitor.asked_for())
        visitor.leave()
