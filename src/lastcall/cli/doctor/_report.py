"""The findings for people and for scripts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from lastcall.cli._fit import phases
from lastcall.cli._say import one_line
from lastcall.cli.doctor._facts import Facts
from lastcall.cli.doctor._finding import Finding, Severity
from lastcall.cli.doctor._server_words import Server

_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "dim"}


def to_json(facts: Facts, findings: Sequence[Finding]) -> dict[str, Any]:
    """One object: what was looked at, what was found, how much of it."""
    counts = Counter(finding.severity for finding in findings)
    return {
        "looked_at": looked_at(facts),
        "findings": [finding._asdict() for finding in findings],
        "errors": counts[Severity.ERROR],
        "warnings": counts[Severity.WARNING],
        "notes": counts[Severity.NOTE],
    }


def to_text(facts: Facts, findings: Sequence[Finding]) -> str:
    """Drawn for standard output: in colour for a terminal, plain for a file or a pipe."""
    console = Console(highlight=False)
    with console.capture() as drawn:
        for finding in findings:
            head = Text(f"{finding.severity:<7} ", style=_STYLES[finding.severity])
            head.append(finding.code, style="bold").append(f"  {one_line(finding.subject)}", style="not bold")
            console.print(head)
            console.print(Padding(Text(one_line(finding.what)), (0, 0, 0, 8)))
            console.print(Padding(Text(f"> {one_line(finding.change)}", style="green"), (0, 0, 1, 8)))
        for name, what in looked_at(facts).items():
            shown = what if isinstance(what, list) else [what]
            for line in shown or ["nothing"]:
                console.print(Text(f"looked at the {name}: {one_line(line)}", style="dim"))
        console.print(Text(verdict(findings), style="bold"))
    return "".join(f"{line.rstrip()}\n" for line in drawn.get().splitlines())


def verdict(findings: Sequence[Finding]) -> str:
    """How much was found, in one line."""
    counts = Counter(finding.severity for finding in findings)
    told = [
        f"{counts[severity]} {severity}{'' if counts[severity] == 1 else 's'}"
        for severity in Severity
        if counts[severity]
    ]
    return ", ".join(told) if told else "nothing was found"


def looked_at(facts: Facts) -> dict[str, Any]:
    """What the findings rest on, in words; an empty list: nothing was given."""
    plan = facts.app.plan
    store = facts.store
    return {
        "app": f"{facts.app.target}: {'no lastcall' if plan is None else phases(plan)}",
        "servers": [_server(server) for server, _ in facts.servers],
        "pods": [f"{pod.where}: {pod.grace_seconds:g} s until SIGKILL" for pod in facts.pods],
        "store": [] if store is None else [_store_words(store)],
    }


def _server(server: Server) -> str:
    known = {name: value for name, value in server._asdict().items() if name.endswith("_seconds")}
    limits = [
        f"{name.removesuffix('_seconds').replace('_', ' ')} {value:g} s"
        for name, value in known.items()
        if value
    ]
    return ", ".join([f"{server.where}: {server.name}", f"{server.workers} workers", *limits])


def _plain(name: str) -> str:
    return name.removesuffix("_seconds").replace("_", " ")


def _store_words(store: Any) -> str:
    words = [store.shown.removeprefix("the store ")]
    if store.filesystem:
        words.append(f"on {store.filesystem}")
    if store.schema is not None:
        words.append(f"schema {store.schema.found} of {store.schema.known}")
        words.append(f"{len(store.workers)} workers")
    return ", ".join(words)


def dump(facts: Facts, findings: Sequence[Finding]) -> str:
    """The object as text."""
    return json.dumps(to_json(facts, findings), indent=2, default=str) + "\n"
