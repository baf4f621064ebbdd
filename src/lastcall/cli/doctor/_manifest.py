"""A Kubernetes manifest as facts: what surrounds each container at a shutdown. The only file that imports yaml.

Who calls it: `doctor`. What can go wrong: a file that is no YAML, or no manifest (`Unusable`); templates (Helm) must be
rendered first. A field of the wrong shape is passed over: Kubernetes itself will refuse it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own

from lastcall.cli._say import Unusable, one_line
from lastcall.cli.doctor._server_words import Server, parse_server

_DEFAULT_GRACE_SECONDS = 30.0
_MAX_BYTES = 4 << 20

_VOLUME_KINDS = (
    "persistentVolumeClaim",
    "emptyDir",
    "hostPath",
    "nfs",
    "cephfs",
    "glusterfs",
    "azureFile",
    "configMap",
    "secret",
)


class Probe(NamedTuple):
    """An HTTP probe. `notices_after_seconds`: until it has failed as often as it must."""

    path: str
    notices_after_seconds: float


class Pod(NamedTuple):
    """One container and what surrounds it. `pre_stop_seconds` None: there is a hook, of unknown length.
    `volumes`: kinds by the path where they are mounted."""

    where: str
    kind: str
    replicas: int
    grace_seconds: float
    pre_stop_seconds: float | None
    readiness: Probe | None
    liveness: Probe | None
    environment: Mapping[str, str]
    working_dir: str | None
    volumes: Mapping[str, str]
    server: Server | None


def read_manifests(path: Path) -> list[Pod]:
    """The containers of a file. Raises `Unusable`."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise Unusable(f"{str(path)!r} is too large for a manifest")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise Unusable(f"cannot read {str(path)!r}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise Unusable(f"{str(path)!r} is no text in UTF-8") from None
    try:
        documents = list(yaml.safe_load_all(text))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        told = one_line(str(error)) or type(error).__name__
        raise Unusable(f"{str(path)!r} is no YAML: {told}; a template must be rendered first") from None
    pods = [pod for document in documents for pod in pods_of(document, path.name)]
    if not pods:
        raise Unusable(f"{str(path)!r} has no Deployment, StatefulSet, Pod, or anything else with containers")
    return pods


def pods_of(document: Any, file: str) -> Iterator[Pod]:
    """The containers of one document, also inside a `List`. Pure."""
    document = _dict(document)
    for item in _list(document.get("items")):
        yield from pods_of(item, file)
    kind = str(document.get("kind", ""))
    spec = _dict(document.get("spec"))
    if kind == "CronJob":
        spec = _dict(_dict(spec.get("jobTemplate")).get("spec"))
    inner = spec if kind == "Pod" else _dict(_dict(spec.get("template")).get("spec"))
    name = _dict(document.get("metadata")).get("name", "?")
    volumes = {
        str(volume.get("name")): next((kind for kind in _VOLUME_KINDS if kind in volume), "other")
        for volume in map(_dict, _list(inner.get("volumes")))
    }
    if kind == "StatefulSet":
        for claim in map(_dict, _list(spec.get("volumeClaimTemplates"))):
            volumes[str(_dict(claim.get("metadata")).get("name"))] = "persistentVolumeClaim"
    found = []
    for container in map(_dict, _list(inner.get("containers"))):
        where = one_line(f"{kind} {name}, container {container.get('name', '?')} ({file})")
        found.append(_pod(where, kind, spec, inner, container, volumes))
    # Beside a server that is known, the others are proxies and shippers of logs, whose probes are not ours.
    yield from [pod for pod in found if pod.server is not None] or found


def _pod(
    where: str,
    kind: str,
    spec: Mapping[str, Any],
    inner: Mapping[str, Any],
    container: Mapping[str, Any],
    volumes: Mapping[str, str],
) -> Pod:
    environment = {
        str(entry.get("name")): str(entry["value"])
        for entry in map(_dict, _list(container.get("env")))
        if "value" in entry
    }
    words = [str(word) for word in (*_list(container.get("command")), *_list(container.get("args")))]
    working_dir = container.get("workingDir")
    return Pod(
        where,
        kind,
        int(_seconds(spec.get("replicas"), 1.0)),
        _seconds(inner.get("terminationGracePeriodSeconds"), _DEFAULT_GRACE_SECONDS),
        _pre_stop(_dict(_dict(container.get("lifecycle")).get("preStop"))),
        _probe(_dict(container.get("readinessProbe"))),
        _probe(_dict(container.get("livenessProbe"))),
        environment,
        None if working_dir is None else str(working_dir),
        {
            str(mount.get("mountPath")): volumes.get(str(mount.get("name")), "other")
            for mount in map(_dict, _list(container.get("volumeMounts")))
        },
        parse_server(words, where, environment),
    )


def _pre_stop(hook: Mapping[str, Any]) -> float | None:
    """How long the hook takes; 0 without one, None if that cannot be read."""
    if not hook:
        return 0.0
    if "sleep" in hook:
        return _seconds(_dict(hook["sleep"]).get("seconds"), 0.0)
    words = [str(word) for word in _list(_dict(hook.get("exec")).get("command"))]
    text = " ".join(words).split()
    if "sleep" in text and text.index("sleep") + 1 < len(text):
        return _number(text[text.index("sleep") + 1])
    return None


def _probe(probe: Mapping[str, Any]) -> Probe | None:
    request = _dict(probe.get("httpGet"))
    if "path" not in request:
        return None
    period = _seconds(probe.get("periodSeconds"), 10.0)
    return Probe(str(request["path"]), period * _seconds(probe.get("failureThreshold"), 3.0))


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _seconds(value: Any, default: float) -> float:
    seconds = _number(value)
    return default if seconds is None else seconds


def _number(value: Any) -> float | None:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        return None
    return seconds if 0 <= seconds < 1e9 else None
