"""Who uses agents pays for the libraries that he uses, and for no other."""

import os
import subprocess
import sys

from tests.cli.program import ROOT

LIBRARIES = ("agents", "langchain_core", "langgraph", "openai", "pydantic_ai")


def imported_by(code: str) -> set[str]:
    """Which of the libraries a fresh interpreter has imported after this code."""
    asked = f"import sys\n{code}\nprint(*(name for name in {LIBRARIES!r} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", asked],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_a_queue_imports_no_library() -> None:
    """A program with an agent of its own installs none of them, and waits for none of them at its start."""
    code = "from lastcall.agents import AgentQueue\nasync def agent(prompt): return prompt\nAgentQueue(agent)"
    assert imported_by(code) == set()


def test_one_library_brings_in_no_other() -> None:
    """A program with LangGraph alone needs none of the others."""
    code = (
        "from lastcall.agents import AgentQueue\nfrom langgraph.graph import END, START, MessagesState, StateGraph\n"
        "graph = StateGraph(MessagesState)\ngraph.add_node('a', lambda state: state)\n"
        "graph.add_edge(START, 'a')\nAgentQueue(graph.compile())"
    )
    assert imported_by(code) == {"langchain_core", "langgraph"}
