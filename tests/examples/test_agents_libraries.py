"""The examples with agents of real libraries do what they say, before a local server that plays the model."""

import re
import signal
from pathlib import Path

import pytest

from tests.cli.program import ROOT, Program
from tests.support.openai_server import Fault, OpenAIServer, Reply, Tool

pytestmark = [pytest.mark.server, pytest.mark.slow]

ANSWER = "the bar stops taking orders and nobody is locked in"

# The example, what its model says, the request in which it is killed, and what its tool prints.
EXAMPLES = [
    (
        "agents_pydantic_ai",
        [Reply(tools=[Tool("read", {"name": "minutes"})]), Reply(ANSWER)],
        r"\[read minutes\]",
    ),
    ("agents_langgraph", [Reply(ANSWER)], r"\[searched tea\]"),
    ("agents_openai", [Reply(ANSWER)], None),
    (
        "agents_openai_agents",
        [
            Reply(tools=[Tool("transfer_to_clerk")]),
            Reply(tools=[Tool("look_up", {"order": "tea"})]),
            Reply(ANSWER),
        ],
        r"\[looked up tea\]",
    ),
]


@pytest.mark.parametrize(("name", "script", "tool"), EXAMPLES, ids=[name for name, _, _ in EXAMPLES])
def test_killed_in_the_last_answer(name: str, script: list[Reply], tool: str | None, tmp_path: Path) -> None:
    """
    1. The program is killed with kill -9 while the last answer of its model is streamed.
    2. It is started again.
    Result: no other request is made again, no tool is called again, and the answer is there once.
    """
    # -P, because beside them stands an example called agents, as the SDK's package is.
    command = ["-P", str(ROOT / "examples" / f"{name}.py"), "tea"]
    with OpenAIServer(script, faults={len(script): Fault(hold_after=4)}) as server:
        environment = {
            "OPENAI_BASE_URL": server.url,
            "OPENAI_API_KEY": "none",
            "OPENAI_AGENTS_DISABLE_TRACING": "1",
        }
        with Program(command, cwd=tmp_path, env=environment) as first:
            first.wait_for("taking ", on="out")
            first.signal(signal.SIGKILL)
            first.wait()
        server.release()
        with Program(command, cwd=tmp_path, env=environment) as second:
            assert second.wait() == 0
    assert "[completed]" in second.out
    said = second.out.rpartition("[again: ")[2]
    assert said.count("locked in") == 1
    if tool is not None:
        assert len(re.findall(tool, first.out + second.out)) == 1
    assert len(server.paid) == len(script) + (name != "agents_openai")
    assert "Traceback" not in first.err + second.err
