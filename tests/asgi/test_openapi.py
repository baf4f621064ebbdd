"""PREFIX/openapi.json: it is written from the table by which the face answers, and says the truth about every page."""

import socket
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from lastcall import TaskManager
from lastcall.asgi import Lastcall
from lastcall.asgi._openapi import document
from lastcall.jobs import Jobs
from lastcall.streams import Streams
from tests.asgi.driver import get, running
from tests.asgi.test_face import not_found
from tests.asgi.test_jobs_face import Service, post, run_all, url_of
from tests.cli.program import Program

HERE = Path(__file__).parent
# They end the process, or never end.
NOT_TRIED = "^/(drain|live)$"


async def metrics(scope: Any, receive: Any, send: Any) -> None:
    raise NotImplementedError


def whole_face(folder: Path) -> Lastcall:
    jobs = Jobs(f"sqlite:///{folder}/jobs.db")
    return Lastcall(not_found, TaskManager(), jobs=jobs, streams=Streams(), metrics=metrics)


def schema_of(told: dict[str, Any], reference: Any) -> Any:
    """A validator of one schema of the document, whose components it knows."""
    return jsonschema_rs.Draft202012Validator({**reference, "components": told["components"]})


@pytest.mark.loops("asyncio")
async def test_the_document_and_the_routes_are_the_same(tmp_path: Path) -> None:
    """Walked from both sides: every route is told with its parameters, and every operation that is told is a route."""
    app = whole_face(tmp_path)
    async with running(app):
        answer = await get(app, "/lastcall/openapi.json", root_path="/shop")
        told = answer.json()
        assert told["openapi"] == "3.1.0" and told["servers"] == [{"url": "/shop/lastcall"}]
        routes = {(f"/{route.path}", route.method.lower()): route for route in app.face.routes.all}
        operations = {(path, verb): one for path, item in told["paths"].items() for verb, one in item.items()}
        assert routes.keys() == operations.keys()
        ids = [one["operationId"] for one in operations.values()]
        assert len(set(ids)) == len(ids)
        for key, route in routes.items():
            names = {(one["in"], one["name"]) for one in operations[key]["parameters"]}
            assert {("query", param.name) for param in route.query} <= names
            assert set(map(str, route.says)) <= operations[key]["responses"].keys()
        again = await get(
            app, "/lastcall/openapi.json", root_path="/shop", headers=[(b"host", b"localhost"), _tag(answer)]
        )
        assert (again.status, again.body) == (304, b"")


def _tag(answer: Any) -> tuple[bytes, bytes]:
    return b"if-none-match", b'"other", W/' + answer.headers["etag"].encode()


def test_every_example_fits_its_schema(tmp_path: Path) -> None:
    """What people copy from the document is true: bodies, answers and problems."""
    told = document(whole_face(tmp_path).face.routes.all, "/lastcall", "1")
    tried = 0
    for item in told["paths"].values():
        for one in item.values():
            bodies = [one["requestBody"]] if "requestBody" in one else []
            for place in (*bodies, *one["responses"].values()):
                for content in place.get("content", {}).values():
                    if "example" in content:
                        schema_of(told, content["schema"]).validate(content["example"])
                        tried += 1
    assert tried > 100


@pytest.mark.loops("asyncio")
async def test_real_answers_fit_their_schema(tmp_path: Path) -> None:
    """Every page that only looks, with jobs that have completed, failed and wait: its answer is what is told of it."""
    jobs = Jobs(url_of(tmp_path))
    service = Service(jobs, streams=jobs.streams)
    async with running(service.app):
        await (await jobs.streams.create("talk", ttl_seconds=60)).append_json({"user": "Hello"}, [1], None)
        await jobs.streams.open("talk").fork("talk/again", after=1)
        await service.add.submit(1)
        failed = await service.fail.submit()
        await service.wait.submit()
        await run_all(service)
        told = (await get(service.app, "/lastcall/openapi.json")).json()
        for path, item in told["paths"].items():
            if "get" not in item or path == "/live":
                continue
            tasks = (await get(service.app, "/lastcall/tasks")).json()["tasks"]
            id = tasks[0]["id"] if path.startswith("/tasks") else failed.id
            answer = await get(service.app, "/lastcall" + path.replace("{id}", id).replace("{name}", "talk"))
            assert answer.status == 200, path
            content = item["get"]["responses"]["200"]["content"]["application/json"]
            schema_of(told, content["schema"]).validate(answer.json())
        refused = await post(service.app, f"jobs/{failed.id}/send", {"name": "go"})
        problem = told["paths"]["/jobs/{id}/send"]["post"]["responses"][str(refused.status)]["content"]
        schema_of(told, problem["application/problem+json"]["schema"]).validate(refused.json())


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.timeout(180)
def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    """A thousand requests made from the document, good ones and bad ones, alone and in sequences, on a real server.

    Longer, by hand: see docs/http.md."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.set_inheritable(True)
        port, fd = listener.getsockname()[1], listener.fileno()
        server = ["-m", "uvicorn", "tests.asgi.contract_app:app", "--fd", str(fd)]
        store = {"CONTRACT_STORE": f"sqlite:///{tmp_path}/jobs.db"}
        with Program(server, cwd=tmp_path, env=store, keep=[fd]) as served:
            served.wait_for("Application startup complete")
            trial = [
                *("-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml")),
                *("run", f"http://127.0.0.1:{port}/lastcall/openapi.json", "--exclude-path-regex", NOT_TRIED),
                *("--max-examples", "5", "--max-time", "12", "--seed", "1", "--no-color"),
                *("--request-timeout", "5"),
            ]
            with Program(trial, cwd=tmp_path) as schemathesis:
                assert schemathesis.wait() == 0
            cases = schemathesis.out.partition("Test cases:")[2].split()
            assert int(cases[0].replace(",", "")) > 50
            assert '" 500 ' not in served.out
