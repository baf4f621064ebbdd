"""The manifests of deploy/kubernetes are right, as far as `lastcall doctor` can tell, and doctor would tell if not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.frame.floorplan import ROOT
from tests.support.postgres import shared_url

MANIFESTS = ROOT / "deploy" / "kubernetes"


def doctor(folder: Path, url: str, *manifests: Path, migrate: bool = True) -> list[str]:
    """The codes of what it finds, for the app of the manifests and a store that is there."""
    command = [sys.executable, "-m", "lastcall"]
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT / "examples")])
    env = {**os.environ, "PYTHONPATH": paths, "DATABASE_URL": url}
    if migrate:
        made = [*command, "db", "migrate", "--app", "kubernetes_app:jobs"]
        subprocess.run(made, cwd=folder, env=env, check=True, capture_output=True)
    asked = [*command, "doctor", "kubernetes_app:app", "--strict", "--json"]
    for manifest in manifests:
        asked += ["--manifest", str(manifest)]
    done = subprocess.run(asked, cwd=folder, env=env, capture_output=True, text=True, timeout=50)
    assert done.returncode in (0, 1), done.stderr
    return [finding["code"] for finding in json.loads(done.stdout)["findings"]]


@pytest.mark.slow
def test_several_pods_on_postgresql(tmp_path: Path) -> None:
    """Web and worker, as they stand: nothing will go wrong at the next deploy."""
    url = f"{shared_url()}?schema=kubernetes_{os.getpid()}"
    assert doctor(tmp_path, url, MANIFESTS / "web.yaml", MANIFESTS / "worker.yaml") == []


@pytest.mark.slow
def test_one_pod_on_sqlite(tmp_path: Path) -> None:
    """The single pod as it stands; and with a second replica, or less time, doctor says so."""
    found = doctor(tmp_path, "sqlite:///jobs.db", MANIFESTS / "single.yaml")
    # Only on a machine whose folder for passing files is memory; the pod has its volume.
    assert [code for code in found if code != "sqlite-in-memory"] == []
    changed = (MANIFESTS / "single.yaml").read_text(encoding="utf-8")
    changed = changed.replace("replicas: 1 ", "replicas: 2 ").replace("Seconds: 35", "Seconds: 20")
    (tmp_path / "changed.yaml").write_text(changed, encoding="utf-8")
    found = doctor(tmp_path, "sqlite:///jobs.db", tmp_path / "changed.yaml", migrate=False)
    assert {"sqlite-several-pods", "grace-period-too-short", "kill-after-differs"} <= set(found)


@pytest.mark.parametrize("path", sorted(MANIFESTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_what_doctor_cannot_see(path: Path) -> None:
    """Pods go before others are ready, a budget blocks the drain of a node, or a selector selects nothing."""
    documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    by_kind = {document["kind"]: document["spec"] for document in documents}
    labels = [spec["template"]["metadata"]["labels"] for spec in by_kind.values() if "template" in spec]
    for kind, spec in by_kind.items():
        wanted = spec["selector"] if kind == "Service" else spec["selector"]["matchLabels"]
        assert wanted in labels
    budget = by_kind.get("PodDisruptionBudget")
    if budget is not None:
        assert budget["maxUnavailable"] == 1 < by_kind["Deployment"]["replicas"]
    if "Service" in by_kind and "Deployment" in by_kind:
        assert by_kind["Deployment"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
