"""The files in deploy/: each path, port, command and time in them is one of the program's."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import parsed
from prometheus_client import CollectorRegistry

from bertlora.serving.app import make_app
from bertlora.serving.fleet import Fleet
from bertlora.serving.gate import OPEN_PATHS
from bertlora.serving.metrics import OUTCOMES, Metrics
from bertlora.serving.operations import fields
from bertlora.serving.questions import Answer, Question
from bertlora.serving.record import Record
from bertlora.serving.server import END_S
from bertlora.serving.service import Service

ROOT = Path(__file__).parents[1]
UNIT = ROOT / "deploy" / "bertlora.service"
MANIFEST = ROOT / "deploy" / "kubernetes.yaml"
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
PROGRAM = "/opt/bertlora/bin/bertlora"


def settings() -> dict[str, list[str]]:
    """Returns the settings of the unit by name, each with all its values."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def table(title: str, heading: str) -> list[str]:
    """Returns the names in the first cells of a table of the page, below a heading."""
    part = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0].split(f"| {title} |")[1]
    rows = [line.split("|")[1] for line in part.split("\n\n")[0].splitlines() if line.startswith("| `")]
    return [name for cell in rows for name in re.findall(r"`(\w+)`", cell)]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_the_unit_is_accepted_and_exposes_little(tmp_path: Path) -> None:
    program = tmp_path / "bertlora"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text(encoding="utf-8").replace(PROGRAM, str(program)))
    for words in (["verify"], ["security", "--offline=true", "--threshold=15"]):  # 1.5 of 10
        done = subprocess.run(["systemd-analyze", *words, str(unit)], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout[-300:]


def test_the_unit_runs_the_server_and_lets_it_end() -> None:
    found = settings()
    program, verb, *rest = shlex.split(found["ExecStart"][0])
    assert program == PROGRAM
    given = parsed(verb, *rest).params
    assert given["host"] == "127.0.0.1"
    assert Path(given["watch"]).relative_to("/var/lib").as_posix() in found["StateDirectory"][0].split()
    assert f"%d/{found['LoadCredential'][0].partition(':')[0]}" == given["key_file"]
    assert int(found["TimeoutStopSec"][0]) > END_S
    assert found["DynamicUser"] == ["yes"]


def test_the_manifest_asks_what_the_server_answers() -> None:
    manifests: list[dict[str, Any]] = list(yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8")))
    deployment, service, budget = manifests
    assert [one["kind"] for one in manifests] == ["Deployment", "Service", "PodDisruptionBudget"]
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    verb, *rest = container["args"]
    given = parsed(verb, *rest).params
    (port,) = container["ports"]
    assert given["port"] == port["containerPort"]
    assert given["host"] == "0.0.0.0"
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert given["watch"] in mounts
    assert set(mounts.values()) == {volume["name"] for volume in pod["volumes"]}
    routes = make_app(Service(Fleet())).openapi()["paths"]
    for check in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[check]["httpGet"]
        assert asked["port"] == port["name"]
        assert "get" in routes[asked["path"]]
        assert asked["path"] in OPEN_PATHS, "they have no key"
    assert container["readinessProbe"] != container["livenessProbe"]
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > pause + END_S
    user = re.search(r"^USER (\d+):", (ROOT / "Containerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert user is not None
    assert pod["securityContext"]["runAsUser"] == int(user[1])
    assert container["env"][0]["name"] == "BERTLORA_API_KEY"
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["selector"] == budget["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]


def test_the_page_lists_every_metric_outcome_and_field() -> None:
    registry: CollectorRegistry = Metrics(Service(Fleet())).registry
    names = {f"{family.name}_total" if family.type == "counter" else family.name for family in registry.collect()}
    assert sorted(names) == sorted(table("metric", "Metrics"))
    assert {*OUTCOMES.values()} == {*table("outcome", "Metrics")}
    question, answer = Question("a", "text"), Answer.__new__(Answer)
    for key in ("tokens", "queue_s", "tokenization_s", "compute_s"):
        object.__setattr__(answer, key, 1)
    line = fields({"type": "http"}, "POST", Record([question], [answer], "the queue is full"), 200, 1.0)
    assert sorted(line) == sorted(table("field", "Logs"))
