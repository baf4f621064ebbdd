"""What the dashboard serves: its own files, under headers that hold the page to them, and nothing else."""

import gzip
import re
from importlib.resources import files
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette

from lastcall import TaskManager, fastapi, starlette
from lastcall.asgi import Lastcall
from lastcall.dashboard import Dashboard
from tests.asgi.driver import Request, get, running

pytestmark = pytest.mark.loops("asyncio")

LOCAL = [(b"host", b"localhost")]
STATIC = files("lastcall.dashboard").joinpath("static")
SOURCES = {file.name: file.read_text("utf-8") for file in STATIC.iterdir()}
SCRIPTS = [name for name in SOURCES if name.endswith(".js")]
PATHS = ["/lastcall/", *(f"/lastcall/assets/{name}" for name in SOURCES)]


def make(**options: Any) -> Lastcall:
    async def not_ours(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 418, "headers": []})
        await send({"type": "http.response.body", "body": b"the app"})

    return Lastcall(not_ours, TaskManager(), dashboard=Dashboard(), **options)


async def ask(app: Any, path: str, *headers: tuple[bytes, bytes], **options: Any) -> Request:
    return await get(app, path, headers=[*LOCAL, *headers], **options)


async def test_every_file_is_held_to_this_origin() -> None:
    """A script that gets into the page anyway may not run, and what it would tell may go nowhere."""
    async with running(app := make()):
        for path in PATHS:
            answer = await ask(app, path)
            assert answer.status == 200, path
            policy = dict(
                part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; ")
            )
            assert policy == {
                "default-src": "'none'",
                "script-src": "'self'",
                "style-src": "'self'",
                "connect-src": "'self'",
                "img-src": "'self' data:",
                "base-uri": "'none'",
                "form-action": "'none'",
                "frame-ancestors": "'none'",
            }
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert int(answer.headers["content-length"]) == len(answer.body)


async def test_a_file_that_is_known_is_not_sent_again() -> None:
    """The page is asked about each time, so that it never mixes two versions; an unchanged file costs a 304."""
    async with running(app := make()):
        for path in PATHS:
            first = await ask(app, path)
            assert first.headers["cache-control"] == "no-cache"
            etag = first.headers["etag"].encode()
            for known in (etag, b'"other", W/' + etag):
                again = await ask(app, path, (b"if-none-match", known))
                assert (again.status, again.body, again.headers["etag"]) == (304, b"", etag.decode())
            assert (await ask(app, path, (b"if-none-match", b'"other"'))).status == 200


async def test_it_is_compressed_for_those_who_can_read_that() -> None:
    """Compressed and plain are two forms of one file, and caches can tell them apart."""
    async with running(app := make()):
        for path in PATHS:
            plain = await ask(app, path, (b"accept-encoding", b"br, gzip;q=0"))
            packed = await ask(app, path, (b"accept-encoding", b"br;q=1.0, gzip;q=0.8"))
            assert "content-encoding" not in plain.headers
            assert packed.headers["content-encoding"] == "gzip"
            assert packed.headers["vary"] == "accept-encoding"
            assert gzip.decompress(packed.body) == plain.body
            assert packed.headers["etag"] != plain.headers["etag"]


async def test_head_and_other_methods() -> None:
    """HEAD has the headers of GET and no body; a page takes nothing."""
    async with running(app := make()):
        whole = await ask(app, "/lastcall/")
        head = await ask(app, "/lastcall/", method="HEAD")
        assert (head.status, head.body) == (200, b"")
        assert head.headers == whole.headers
        assert (await ask(app, "/lastcall/", method="POST")).status == 405


@pytest.mark.parametrize(
    "name",
    ["missing.js", "..", "%2e%2e", "..%2f_app.py", "_app.py", ".", "index.html%00", "../../_app.py", "a/b"],
)
async def test_no_name_leads_out_of_the_folder(name: str) -> None:
    """A name is looked up among ours; it never becomes a path."""
    async with running(app := make()):
        answer = await ask(app, f"/lastcall/assets/{name}")
        assert (answer.status, answer.json()["status"]) == (404, 404)
        assert answer.headers["content-type"] == "application/problem+json"


async def test_without_the_slash_the_browser_is_sent_to_it() -> None:
    """Links of the page are relative, so that it works below whatever a proxy puts before it."""
    async with running(app := make()):
        answer = await ask(app, "/lastcall")
        assert answer.status in (307, 308)
        assert answer.headers["location"].endswith("lastcall/")


async def test_strangers_do_not_see_the_page() -> None:
    """It goes by `allow`, as everything below the prefix."""
    async with running(app := make()):
        for path in PATHS:
            answer = await get(app, path, headers=LOCAL, client=("10.0.0.7", 1))
            assert answer.status == 403 and b"<html" not in answer.body


async def test_it_answers_while_the_process_drains() -> None:
    """Somebody opens the page because the deploy hangs."""
    async with running(app := make()):
        app.manager.begin_shutdown()
        assert (await ask(app, "/lastcall/")).status == 200


@pytest.mark.parametrize("framework", [fastapi, starlette], ids=["fastapi", "starlette"])
async def test_it_can_be_left_out(framework: Any) -> None:
    """Somebody wants the JSON and no page: `dashboard=False`; without it the page comes along."""
    for wanted in (True, False):
        app = FastAPI() if framework is fastapi else Starlette()
        framework.install(app, TaskManager(), dashboard=wanted)
        async with running(app):
            statuses = {
                path: (await ask(app, f"/lastcall/{path}")).status for path in ("", "assets/app.js", "meta")
            }
            assert statuses == {
                "": 200 if wanted else 404,
                "assets/app.js": 200 if wanted else 404,
                "meta": 200,
            }
            if not wanted:
                assert "no dashboard" in (await ask(app, "/lastcall/")).json()["detail"]


def test_the_page_names_its_own_files_only() -> None:
    """No address of another origin, and no file that is not there; a file that nobody loads is not shipped."""
    named = {"index.html"}
    for name, text in SOURCES.items():
        assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)\S+", text), name
        named |= set(re.findall(r'"\./([\w.]+)"', text)) | set(re.findall(r'"assets/([\w.]+)"', text))
    assert named == set(SOURCES)


@pytest.mark.parametrize("name", SCRIPTS)
def test_text_becomes_text(name: str) -> None:
    """Nothing in a script can turn a string into markup or code."""
    ways = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\b|new Function"
        r"|createContextualFragment|srcdoc|setTimeout\(['\"`]"
    )
    assert not re.findall(
        ways, "".join(line for line in SOURCES[name].splitlines(True) if not line.startswith("//"))
    )


def test_it_stays_small() -> None:
    """No framework, no build: what is shipped is what somebody can read. On the wire it is compressed."""
    assert sum(map(len, SOURCES.values())) < 115_000
    assert sum(len(gzip.compress(text.encode())) for text in SOURCES.values()) < 43_000


# --- colours ---------------------------------------------------------------------------------------------

# Text over what it stands on, by their names in the style sheet.
TEXT = [
    ("text", "bg"), ("text", "surface"), ("text", "sunk"), ("text", "wash"), ("soft", "bg"), ("soft", "surface"),
    ("soft", "sunk"), ("soft", "wash"), ("accent", "surface"), ("accent", "wash"), ("accent", "bg"),
    ("fail", "surface"), ("fail", "fail-wash"), ("fail", "sunk"), ("ok", "surface"), ("on-accent", "accent"),
    ("bg", "text"), ("surface", "fail"), ("text", "track"),
]  # fmt: skip
# What is a shape, and no text.
SHAPES = [("ok", "track"), ("accent", "track"), ("fail", "track"), ("soft", "surface"), ("accent", "bg")]


def palettes() -> list[dict[str, str]]:
    light, dark = re.findall(r":root \{(.*?)\}", SOURCES["style.css"], re.DOTALL)
    return [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", palette)) for palette in (light, dark)]


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_contrast_is_that_of_wcag_aa(scheme: int) -> None:
    """4.5 to 1 for text, 3 to 1 for shapes that mean something, in both schemes."""
    palette = palettes()[scheme]
    ratios = {(a, b): contrast(palette[a], palette[b]) for a, b in TEXT}
    assert {pair: round(ratio, 2) for pair, ratio in ratios.items() if ratio < 4.5} == {}
    shapes = {(a, b): contrast(palette[a], palette[b]) for a, b in SHAPES}
    assert {pair: round(ratio, 2) for pair, ratio in shapes.items() if ratio < 3} == {}
