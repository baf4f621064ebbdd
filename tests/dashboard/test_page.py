"""The dashboard in a real browser, clicked through as people do."""

import json
from urllib.parse import quote

import pytest

from tests.dashboard.conftest import Bar
from tests.support.visitor import Visitor

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(120)]

ROWS = "document.querySelectorAll('tbody tr').length"
FOCUSED = "document.activeElement"


def test_from_the_list_to_a_job_that_is_cancelled_and_tried_again(bar: Bar, visitor: Visitor) -> None:
    """
    1. Somebody looks for the chats, finds one that runs, and opens it.
    2. It speaks while they look on; they cancel it, think better of it, cancel it again, and try it anew.
    Result: each of these is on the page as it happens, and in the store.
    """
    bar.order("ping", many=60)
    id = bar.order("answer", question="one")
    visitor.visit(bar.url, "document.querySelector('.figure[data-status=running] b')?.innerText === '1'")
    visitor.click("Jobs", within="header")
    visitor.until(f"{ROWS} === 50")
    visitor.click_at("#search")
    visitor.type("answer")
    visitor.press("Enter")
    visitor.until(f"{ROWS} === 1")
    assert visitor.value("location.hash") == "#/jobs?task_part=answer"
    visitor.click("answer", within="tbody")
    visitor.until(
        "document.querySelector('.stream')?.innerText === 'When the bell rings the bar stops taking orders. '"
    )
    assert "being written" in visitor.text("main").lower()
    bar.say("one")
    visitor.see("may finish the glass.")
    visitor.see("told")  # its result
    visitor.until("document.querySelector('.title .mark').dataset.status === 'completed'")
    assert bar.job(id)["status"] == "completed"

    id = bar.order("answer", question="two")
    visitor.value(f"location.hash = '#/jobs/{id}'")
    visitor.see("When the bell rings")
    visitor.click("Cancel", within=".title")
    visitor.see("Cancel this job?")
    visitor.click("Leave it", within="dialog")
    assert bar.job(id)["status"] == "running"
    visitor.click("Cancel", within=".title")
    visitor.click("Cancel", within="dialog")
    visitor.until("document.querySelector('.title .mark').dataset.status === 'cancelled'")
    assert bar.job(id)["status"] == "cancelled"
    visitor.click("Retry", within=".title")
    visitor.until("document.querySelectorAll('.lanes .attempt').length === 2")
    bar.say("two")
    visitor.until("document.querySelector('.title .mark').dataset.status === 'completed'")
    assert visitor.text(".stream").strip().endswith("may finish the glass.")
    assert visitor.text(".stream").count("When the bell rings") == 1


def test_pages_of_the_list(bar: Bar, visitor: Visitor) -> None:
    """More jobs than fit a page: older ones are a click away, filters begin at the first page, a reload keeps them."""
    bar.order("ping", many=120)
    visitor.visit(f"{bar.url}#/jobs?task=ping")
    visitor.until(f"{ROWS} === 50")
    first = visitor.value("document.querySelector('tbody a').href")
    visitor.click("Older")
    visitor.see("51 to 100")
    assert visitor.value("document.querySelector('tbody a').href") != first
    visitor.click("Newer")
    visitor.see("1 to 50")
    assert visitor.value("document.querySelector('tbody a').href") == first
    visitor.click("Older")
    visitor.see("51 to 100")
    visitor.click_at(".chip:has([data-status=failed])")
    visitor.see("No job fits this filter")
    visitor.visit(visitor.value("location.href"))
    visitor.see("No job fits this filter")
    assert visitor.value("document.querySelector('.chip:has([data-status=failed])').ariaPressed") == "true"


def test_a_failure_is_told_from_top_to_bottom(bar: Bar, visitor: Visitor) -> None:
    """A job fails while the overview is open: the newest failures, its page with the traceback, its purge."""
    visitor.visit(bar.url)
    id = bar.order("invoice", customer="Quickly")
    visitor.see("no customer 'Quickly' in the ledger")
    visitor.click_at(f"a[href$='{id}']")
    visitor.see("LookupError: no customer 'Quickly' in the ledger")
    visitor.see("in invoice\n")
    visitor.see("looking for Quickly")
    visitor.click("Purge", within=".title")
    visitor.see("This cannot be undone")
    visitor.click("Purge", within="dialog")
    visitor.until("location.hash === '#/jobs'")
    assert "no job" in bar.ask("GET", f"/lastcall/jobs/{id}")["detail"]
    visitor.page.events.clear()  # the page may have asked once more, and the browser notes the 404


def test_a_person_gives_an_answer(bar: Bar, visitor: Visitor) -> None:
    """A job waits for a message; the dialog knows its name, and what is typed arrives as JSON."""
    id = bar.order("approve", amount=12.5)
    visitor.visit(f"{bar.url}#/jobs/{id}")
    visitor.see("signal approval")
    visitor.click("Send", within=".title")
    assert visitor.value("document.querySelector('dialog input').value") == "approval"
    visitor.click_at("dialog textarea")
    visitor.type('{"yes": true, "by": "Nell"}')
    visitor.click("Send", within="dialog")
    visitor.until("document.querySelector('.title .mark').dataset.status === 'completed'")
    assert bar.job(id)["result"] == {"yes": True, "by": "Nell"}


def test_what_the_server_refuses_is_said(bar: Bar, visitor: Visitor) -> None:
    """The dialog stays, with the server's own words, and what was typed is not lost."""
    id = bar.order("approve", amount=1)
    visitor.visit(f"{bar.url}#/jobs/{id}")
    visitor.click("Send", within=".title")
    visitor.value("document.querySelector('dialog input').value = ''")
    visitor.click_at("dialog textarea")
    visitor.type("[1, 2")
    visitor.click("Send", within="dialog")
    visitor.see("'name' must be a text that is not empty")
    assert visitor.value("document.querySelector('dialog textarea').value") == "[1, 2"
    visitor.press("Escape")
    visitor.until("!document.querySelector('dialog').open")
    # The browser itself notes each refused request; that is no fault of the page.
    visitor.page.events.clear()


def test_by_keyboard_alone(bar: Bar, visitor: Visitor) -> None:
    """
    1. The first Tab offers to skip the navigation; `/` leads to the search, Enter filters.
    2. j and k go through the rows, Enter opens one; its buttons are reached by Tab; Escape leads out again.
    Result: all of it without a pointer, the focus always to be seen.
    """
    for number in range(3):
        bar.order("approve", amount=number, key=f"keys-{number}")
    visitor.visit(bar.url)
    visitor.press("Tab")
    assert visitor.value(f"{FOCUSED}.innerText") == "Skip to the content"
    assert visitor.value(f"{FOCUSED}.getBoundingClientRect().top >= 0")
    visitor.press("Enter")
    visitor.until(f"{FOCUSED}.id === 'main'")
    visitor.press("/")
    visitor.until(f"{FOCUSED}.id === 'search'")
    assert visitor.value(f"getComputedStyle({FOCUSED}).outlineStyle") == "solid"
    visitor.type("key:keys-1")
    visitor.press("Enter")
    visitor.until(f"{ROWS} === 1")
    visitor.press("Escape")
    visitor.press("j")
    assert visitor.value(f"{FOCUSED}.innerText") == "approve"
    assert visitor.value(f"getComputedStyle({FOCUSED}).outlineStyle") == "solid"
    visitor.press("Enter")
    visitor.until("location.hash.startsWith('#/jobs/')")
    visitor.until(f"{FOCUSED}.tagName === 'H1'")
    visitor.until("document.querySelector('.tools button')")
    visitor.press("Tab")
    assert visitor.value(f"{FOCUSED}.innerText") == "Send"
    visitor.press("Tab")
    visitor.press("Enter")
    visitor.until("document.querySelector('dialog').open")
    assert visitor.value(f"{FOCUSED}.innerText") == "Leave it"
    visitor.press("Escape")
    visitor.until("!document.querySelector('dialog').open")
    assert visitor.value(f"{FOCUSED}.innerText") == "Cancel"
    visitor.press("Escape")
    visitor.until("location.hash === '#/jobs?key=keys-1'")


def test_a_step_that_runs_is_on_the_axis(bar: Bar, visitor: Visitor) -> None:
    """A step of which nothing is written before its end: its bar has its name, and grows; at last it has an end."""
    id = bar.order("analyse", folder="slow/", files=2, seconds=0.0, wait="slow")
    visitor.visit(f"{bar.url}#/jobs/{id}")
    bar_of = "[...document.querySelectorAll('.lanes .step')].find(one => one.innerText.includes('chapter-1'))"
    visitor.until(f"{bar_of}.querySelector('i').dataset.status === 'running'")
    age = f"parseFloat({bar_of}.querySelector('.n').innerText)"
    visitor.until(f"{age} >= 1")
    bar.say("slow")
    visitor.until(f"{bar_of}.querySelector('i').dataset.status === 'completed'")
    visitor.until("document.querySelectorAll('.lanes .step i[data-status=completed]').length === 2")


def test_streams_that_stand_alone(bar: Bar, visitor: Visitor) -> None:
    """
    1. Somebody looks for a stream by the beginning of its name, and opens it.
    2. While they look on, it is written to, and closed.
    Result: its content is on the page, to the letter and in order, as it comes; then it says that it is closed.
    """
    bar.ask("PUT", "/lastcall/streams/chat/%3Cb%3E%201", [{"text": "What is on tap?"}])
    bar.ask("PUT", "/lastcall/streams/other", [])
    visitor.visit(bar.url)
    visitor.click("Streams", within="header")
    visitor.until(f"{ROWS} === 2")
    visitor.click_at("#search")
    visitor.type("chat/")
    visitor.press("Enter")
    visitor.until(f"{ROWS} === 1")
    visitor.click("chat/<b> 1", within="tbody")
    visitor.see('{"text":"What is on tap?"}')
    bar.ask("POST", "/lastcall/streams/chat/%3Cb%3E%201", [{"text": SHORT}, 2])
    visitor.until(f"document.querySelector('pre').innerText.endsWith({json.dumps(LINES)})")
    bar.ask("POST", "/lastcall/streams/chat/%3Cb%3E%201", [3], **{"Stream-Closed": "true"})
    visitor.until("document.querySelector('.title .mark').dataset.status === 'closed'")
    visitor.until("document.querySelector('pre').innerText.trim().endsWith('3')")
    assert visitor.value("window.hit ?? 'nothing ran'") == "nothing ran"


HOSTILE = (
    '<img src=x onerror="window.hit=1"><script>window.hit=2</script></pre></textarea>'
    "<svg onload=window.hit=3>'`${window.hit=4} javascript:alert(1)"
)
SHORT = "<img src=x onerror=window.hit=5>"
LINES = f'{{"text":"{SHORT}"}}\n2\n'


def test_hostile_words_stay_words(bar: Bar, visitor: Visitor) -> None:
    """Names, arguments, keys, errors, events and streamed text that are HTML: shown to the letter, and nothing runs."""
    ids = [
        bar.order("invoice", customer=HOSTILE + "\u2028\u202e\0", key=HOSTILE),
        bar.order("answer", question=HOSTILE),
        bar.order("analyse", folder=SHORT, files=2),
    ]
    bar.say(HOSTILE)
    bar.ask("POST", f"/tasks/1?name={quote(SHORT)}")
    for id in ids:
        visitor.visit(
            f"{bar.url}#/jobs/{id}", "document.querySelector('.aside pre')?.innerText.includes('onerror')"
        )
        visitor.until("document.querySelector('.title .mark').dataset.status !== 'running'")
    for place in ("", "#/jobs", "#/shutdown", f"#/jobs?key={quote(HOSTILE)}"):
        visitor.visit(bar.url + place)
        visitor.until("document.querySelector('main').innerText.length > 20")
    visitor.visit(f"{bar.url}#/tasks")
    visitor.see(SHORT)
    visitor.click(f"{SHORT} 1", within="tbody")
    visitor.until("document.querySelector('.facts div')")
    assert visitor.complaints() == []
    for place in (
        "#/jobs/%3Cimg%20src=x%3E",
        "#/tasks/%3Cb%3E",
        "#/jobs?status=%3Cb%3E&task=%00",
        "#/%3Cb%3E?%zz",
    ):
        visitor.visit(bar.url + place)
        visitor.until("document.querySelector('main').innerText.length > 20")
    assert visitor.value("window.hit ?? 'nothing ran'") == "nothing ran"
    assert visitor.value("document.querySelectorAll('main img, main script').length") == 0
    visitor.page.events.clear()  # two of these ids are none, and the browser notes the 404


def test_a_phone_has_nothing_beside_its_screen(bar: Bar, visitor: Visitor) -> None:
    """No page scrolls sideways, whatever long words it shows; what is pressed is large enough for a thumb."""
    bar.order("invoice", customer="x" * 300)
    id = bar.order("analyse", folder="a-very-long-folder-name-without-any-space/" * 3, files=3)
    width = 320
    visitor.screen(width, 844)
    bar.ask("PUT", f"/lastcall/streams/{'x' * 300}", [])
    for place in (
        "",
        "#/jobs",
        f"#/jobs/{id}",
        "#/tasks",
        "#/streams",
        f"#/streams/{'x' * 300}",
        "#/shutdown",
    ):
        visitor.visit(bar.url + place, "document.querySelector('main .panel')")
        if "jobs/" in place:
            visitor.until("document.querySelectorAll('.lanes .step').length === 3")
        assert visitor.value("[document.documentElement.scrollWidth, document.body.scrollWidth]") == [
            width,
            width,
        ], place
        small = visitor.value(
            "[...document.querySelectorAll('.top nav a, main button:not(.quiet)')].filter(one => one.offsetParent)"
            ".filter(one => one.getBoundingClientRect().height < 32).map(one => one.innerText)"
        )
        assert small == [], place


def test_dark_and_at_rest(bar: Bar, visitor: Visitor) -> None:
    """Who asks the system for dark gets dark, and who asks for rest sees nothing move."""
    visitor.visit(bar.url)
    light = visitor.value("getComputedStyle(document.body).backgroundColor")
    visitor.prefer(color_scheme="dark", reduced_motion="reduce")
    dark = visitor.value("getComputedStyle(document.body).backgroundColor")
    assert light == "rgb(250, 248, 245)" and dark == "rgb(19, 17, 16)"
    bar.order("approve", amount=3)
    visitor.visit(f"{bar.url}#/jobs")
    visitor.until(f"{ROWS} > 0")
    assert visitor.value("document.getAnimations().length") == 0


def test_a_task_is_opened_and_cancelled(bar: Bar, visitor: Visitor) -> None:
    """A task of the process: found on the overview, opened, cancelled with a question before it."""
    bar.ask("POST", "/tasks/1?name=lonely")
    visitor.visit(f"{bar.url}#/tasks")
    visitor.click("lonely 1", within="tbody")
    visitor.see("running")
    visitor.click("Cancel", within=".title")
    visitor.see("Cancel the task “lonely 1”?")
    visitor.click("Cancel", within="dialog")
    visitor.until("document.querySelector('.title .mark').dataset.status === 'cancelled'")
    visitor.see("user")
