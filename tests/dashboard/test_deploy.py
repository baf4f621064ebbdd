"""The page is left open while its server is stopped, killed and started again: it says what it knows, and returns."""

import signal
from pathlib import Path

import pytest

from tests.dashboard.conftest import opened
from tests.servers.processes import free_port
from tests.support.visitor import Visitor

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(120)]

LINK = "document.body.dataset.link"
LEFT = "parseFloat(document.querySelector('.left').innerText)"


def test_a_deploy_with_the_page_open(tmp_path: Path, visitor: Visitor) -> None:
    """
    1. The page of the shutdown is open; guests are at the bar, one of whom will fail, and a job that streams.
    2. SIGTERM. The budget runs down, and the page says who is still there.
    3. The process ends, and for a while there is none. Another one starts.
    Result: the page counts down, marks what it shows as old, comes back by itself to the new process, and has the
    report of the old one, with who failed and why. A page that is opened only then has it from the store.
    """
    port = free_port()
    with opened(tmp_path, port) as bar:
        id = bar.order("answer", question="last")
        bar.ask("POST", "/tasks/3?until=empty")
        bar.ask("POST", "/tasks/1?name=clumsy&spills=true")
        visitor.visit(f"{bar.url}#/shutdown")
        visitor.see("The bell has not rung")
        visitor.see("guest 3")
        old = visitor.text("#where")
        bar.program.signal(signal.SIGTERM)
        visitor.see("Last call: drain")
        assert visitor.text("#link") == "Draining"
        first = visitor.value(LEFT)
        assert 5 < first <= 25
        visitor.until(f"{LEFT} < {first - 1}")
        assert "guest 2" in visitor.text(".work")
        assert visitor.text(".panel:has(.work) h2") == "Still at the bar"
        (tmp_path / "empty").touch()
        assert bar.program.wait() in (0, -signal.SIGTERM)
    visitor.until(f"{LINK} === 'lost'")
    visitor.see("This process has ended")
    visitor.see("trying again")
    assert visitor.text("#link") == "Reconnecting"
    visitor.see("s old;")
    with opened(tmp_path, port) as bar:
        visitor.until(f"{LINK} === 'live' && document.getElementById('where').innerText !== {old!r}")
        visitor.see("Back: ")
        for _ in range(2):
            visitor.until("document.querySelector('.verdict')")
            assert visitor.text(".verdict").startswith("Not clean")
            visitor.click_at("summary")
            visitor.see("RuntimeError: the glass is broken")
            assert old.split()[-1] in visitor.text(".panel:has(.verdict) .note")
            visitor.visit(f"{bar.url}#/shutdown")
        visitor.click("Jobs", within="header")
        visitor.click("answer", within="tbody")
        bar.say("last")
        visitor.until("document.querySelector('.title .mark').dataset.status === 'completed'")
        visitor.see("may finish the glass.")
        assert visitor.text(".stream").count("When the bell rings") == 1
        assert bar.job(id)["lost"] == 0
    # Connections that are refused while there is no server: the browser notes them, whatever a page does.
    complaints = [said for said in visitor.complaints() if "ERR_" not in said]
    assert complaints == []
    visitor.page.events.clear()


def test_a_server_that_is_killed(tmp_path: Path, visitor: Visitor) -> None:
    """Killed, it says nothing: the page sees it all the same, keeps a job's text, and goes on where it was."""
    port = free_port()
    with opened(tmp_path, port) as bar:
        id = bar.order("answer", question="kill")
        visitor.visit(f"{bar.url}#/jobs/{id}")
        visitor.see("stops taking orders.")
        bar.program.signal(signal.SIGKILL)
        visitor.until(f"{LINK} === 'lost'")
        visitor.see("The server does not answer")
        assert "stops taking orders." in visitor.text(".stream")
    with opened(tmp_path, port) as bar:
        visitor.until(f"{LINK} === 'live'")
        bar.say("kill")
        visitor.until("document.querySelector('.title .mark').dataset.status === 'completed'", 60)
        visitor.see("may finish the glass.")
        assert visitor.text(".stream").count("When the bell rings") == 1
        assert visitor.text(".stream").strip().endswith("may finish the glass.")
        visitor.see("lost")  # the first attempt's fate
    assert [said for said in visitor.complaints() if "ERR_" not in said] == []
    visitor.page.events.clear()


def test_the_page_drains_its_process(tmp_path: Path, visitor: Visitor) -> None:
    """The button asks first, and then the process ends as at a signal."""
    with opened(tmp_path) as bar:
        visitor.visit(f"{bar.url}#/shutdown")
        visitor.click("Drain this process")
        visitor.see("Stop this process?")
        visitor.click("Leave it", within="dialog")
        assert bar.ask("GET", "/lastcall/drain")["state"] == "open"
        visitor.click("Drain this process")
        visitor.click("Drain this process", within="dialog")
        assert bar.program.wait() in (0, -signal.SIGTERM)
        visitor.see("This process has ended")
        visitor.until("document.querySelector('.verdict')?.innerText.startsWith('Clean')")
    visitor.page.events.clear()
