"""What servers do at a shutdown that the plan does not know of. All of it is measured: docs/servers.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lastcall.cli._fit import SPARE_SECONDS, call_limit_seconds, kill_after_seconds, phases
from lastcall.cli.doctor._facts import Facts
from lastcall.cli.doctor._finding import ERROR, NOTE, WARNING, Check, Finding, Severity, served


def _server_kills(facts: Facts) -> Iterator[Finding]:
    for server, plan in served(facts):
        limit = server.kill_after_seconds
        option = "--workers-kill-timeout" if server.name == "granian" else "--graceful-timeout"
        least = kill_after_seconds(plan)
        if limit is None:
            if server.name == "granian":
                yield Finding(
                    "granian-never-kills",
                    WARNING,
                    server.where,
                    "without --workers-kill-timeout granian waits for ever for a worker that does not end",
                    f"--workers-kill-timeout {least}",
                )
        elif limit <= plan.total_seconds:
            yield Finding(
                "server-kills-before-plan",
                ERROR,
                server.where,
                f"{server.name} kills its workers (SIGKILL, no shutdown, no report) {limit:g} s after the signal, but "
                f"the plan takes up to {plan.total_seconds:g} s ({phases(plan)})",
                f"{option} {least}, or a smaller plan",
                limit,
            )
        elif limit < least:
            yield Finding(
                "server-kills-without-spare",
                WARNING,
                server.where,
                f"{server.name} kills its workers {limit:g} s after the signal, less than {SPARE_SECONDS} s after the "
                f"plan's {plan.total_seconds:g} s, and its clock may start up to 1.5 s early",
                f"{option} {least}",
                limit,
            )


def _calls_cut(facts: Facts) -> Iterator[Finding]:
    for server, plan in served(facts):
        limit = server.call_limit_seconds
        option = "--graceful-timeout" if server.name == "hypercorn" else "--timeout-graceful-shutdown"
        if limit is None:
            if server.name == "uvicorn":
                yield Finding(
                    "no-call-limit",
                    NOTE,
                    server.where,
                    "uvicorn itself has no limit for calls; lastcall ends them, but a client that does not read can "
                    "hold its connection until the exit guard ends the process",
                    f"{option} {call_limit_seconds(plan)}, as a backstop",
                )
        elif limit < plan.drain:
            yield Finding(
                "calls-cut-in-drain",
                ERROR,
                server.where,
                f"{server.name} cancels requests and BackgroundTasks {limit:g} s after the signal, but the drain "
                f"promises them {plan.drain:g} s",
                f"{option} {call_limit_seconds(plan)}",
                limit,
            )
        elif limit < plan.drain + plan.cancel:
            yield Finding(
                "calls-cut-in-cancel",
                WARNING,
                server.where,
                f"{server.name} cancels requests {limit:g} s after the signal, amid the cleaning up that the "
                f"plan allows until {plan.drain + plan.cancel:g} s",
                f"{option} {call_limit_seconds(plan)}",
                limit,
            )


def _lifespan_cut(facts: Facts) -> Iterator[Finding]:
    for server, plan in served(facts):
        limit = server.lifespan_limit_seconds
        if limit is not None and server.config_file is None and limit <= plan.total_seconds:
            yield Finding(
                "lifespan-cut",
                ERROR,
                server.where,
                f"{server.name} cancels the lifespan after {limit:g} s (shutdown_timeout), and with it the plan's "
                f"{plan.total_seconds:g} s",
                f"shutdown_timeout = {kill_after_seconds(plan)} in its configuration file",
                limit,
            )


def _lifespan_off(facts: Facts) -> Iterator[Finding]:
    for server, _ in facts.servers:
        if server.lifespan == "off":
            yield Finding(
                "lifespan-off",
                ERROR,
                server.where,
                "without the lifespan lastcall has no beginning and no end; every request is answered with an error",
                "leave out --lifespan off",
            )


def _reload(facts: Facts) -> Iterator[Finding]:
    for server, pod in facts.servers:
        if server.reload:
            yield Finding(
                "reload",
                WARNING if pod is None else ERROR,
                server.where,
                "with --reload each change of a file is a stop, and signals go to a parent that watches files",
                "leave out --reload where it is deployed",
            )


def _several_workers(facts: Facts) -> Iterator[Finding]:
    for server, _ in facts.servers:
        if server.workers < 2:
            continue
        told = _SEVERAL_WORKERS.get(server.name)
        if told is not None:
            severity, what = told
            yield Finding(
                "several-workers",
                severity,
                server.where,
                what,
                "one process per container (-w 0 for hypercorn), and more containers",
                server.workers,
            )


_SEVERAL_WORKERS: Mapping[str, tuple[Severity, str]] = {
    "uvicorn": (
        WARNING,
        "uvicorn's parent hands the signal on up to 0.55 s late, and keeps the socket open while its workers stop: "
        "connections made then are accepted, never answered, and reset",
    ),
    "hypercorn": (
        WARNING,
        "hypercorn's parent keeps the socket open while its workers stop, and terminates the others as soon as the "
        "first has gone",
    ),
}


def _notice(facts: Facts) -> Iterator[Finding]:
    for server, plan in served(facts):
        if plan.notice and server.serves and not server.can_delay:
            name = f"gunicorn -k {server.worker_class}" if server.name == "gunicorn" else server.name
            yield Finding(
                "notice-skipped",
                WARNING,
                server.where,
                f"{name} closes its listener at the signal, so the plan's notice of {plan.notice:g} s is skipped",
                f"a preStop sleep of {plan.notice:g} s, or uvicorn",
                plan.notice,
            )


def _quick_ctrl_c(facts: Facts) -> Iterator[Finding]:
    for server, _ in facts.servers:
        if server.name == "gunicorn" and server.worker_class == "asgi":
            yield Finding(
                "gunicorn-sigint",
                NOTE,
                server.where,
                "gunicorn's own worker takes SIGINT for its quick shutdown: after a second all is cancelled",
                "stop it with SIGTERM, as orchestrators do",
            )


def _shell(facts: Facts) -> Iterator[Finding]:
    for server, _ in facts.servers:
        if server.behind_shell:
            yield Finding(
                "behind-shell",
                WARNING,
                server.where,
                "the command is run by a shell, which as a rule does not hand SIGTERM on: the server is killed at the "
                "end of the grace period and drains nothing",
                f"exec {server.name} ..., or no shell",
            )


def _config_file(facts: Facts) -> Iterator[Finding]:
    for server, _ in facts.servers:
        if server.config_file is not None:
            yield Finding(
                "configuration-unread",
                NOTE,
                server.where,
                f"{server.config_file} was not read; what it says about timeouts counts, and not what is said here",
                "compare it with docs/servers.md",
            )


def _no_server(facts: Facts) -> Iterator[Finding]:
    if facts.app.plan is not None and not any(server.serves for server, _ in facts.servers):
        yield Finding(
            "server-unknown",
            NOTE,
            facts.app.target,
            "no server was looked at, and each has limits of its own",
            "--server 'uvicorn --workers 2 ...', or a manifest whose containers have a command",
        )


CHECKS: tuple[Check, ...] = (
    _server_kills,
    _calls_cut,
    _lifespan_cut,
    _lifespan_off,
    _reload,
    _several_workers,
    _notice,
    _quick_ctrl_c,
    _shell,
    _config_file,
    _no_server,
)
