"""examples/observed: what `docker compose` would run, without containers."""

import json
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.testing import LIMIT, wait_until

for library in ("opentelemetry.sdk", "prometheus_client"):
    pytest.importorskip(library, reason=f"{library} is not installed")

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "observed"


def program(name: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", f"examples.observed.{name}", *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Where the metrics of a running service are, and where it serves."""
    process = program("service", f"ipc://{tmp_path}/words", "0")
    assert process.stdout is not None
    metrics, endpoint = (process.stdout.readline().split()[-1] for _ in range(2))
    yield metrics, endpoint
    process.terminate()
    _, complaints = process.communicate(timeout=LIMIT)
    assert process.returncode == 0 and "Traceback" not in complaints, complaints


def scraped(where: str) -> dict[str, float]:
    """The metrics there, without their labels."""
    with urllib.request.urlopen(where, timeout=LIMIT) as answer:
        lines = answer.read().decode().splitlines()
    return {line.split("{")[0]: float(line.split()[-1]) for line in lines if not line.startswith("#")}


def test_a_service_and_its_caller(service: tuple[str, str]) -> None:
    """Calls are counted where they arrive, and what fails is told."""
    metrics, endpoint = service
    output, complaints = program("caller", endpoint, "0", "20").communicate(timeout=LIMIT)
    assert (complaints, output.splitlines()[1:]) == ("", ["4 faults"])
    wait_until(lambda: scraped(metrics)["callport_server_calls_in_total"] == 20)
    ours = scraped(metrics)
    assert ours["callport_server_calls_out_total"] == 0 and "callport_pool_workers" in ours


def test_what_is_asked_for(service: tuple[str, str]) -> None:
    """Every metric that an alert or the dashboard asks for is there while the programs run."""
    metrics, endpoint = service
    caller = program("caller", endpoint, "0")
    assert caller.stdout is not None
    try:
        where = caller.stdout.readline().split()[-1]
        wait_until(lambda: "callport_client_call_duration_seconds_bucket" in scraped(where))
        there = scraped(metrics).keys() | scraped(where).keys()
    finally:
        caller.send_signal(signal.SIGINT)
        caller.communicate(timeout=LIMIT)
    for name in ("alerts.yml", "grafana/callport.json"):
        asked = set(re.findall(r"callport_\w+[a-z]", (FOLDER / name).read_text(encoding="utf-8")))
        assert len(asked) > 5 and asked <= there, name


@pytest.fixture(scope="module")
def files() -> dict[str, Any]:
    """The files of the set-up, read."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    return {path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in FOLDER.glob("*.y*ml")}


def test_the_files(files: dict[str, Any]) -> None:
    """What they name is there: programs, other files, hosts and ports."""
    services = files["compose.yaml"]["services"]
    ports = {}
    for name, service in services.items():
        for volume in service.get("volumes", ()):
            assert (FOLDER / volume.split(":")[0]).exists(), volume
        if "command" in service:
            python, flag, module, _, port = shlex.split(service["command"])
            assert (python, flag) == ("python", "-m") and (ROOT / f"{module.replace('.', '/')}.py").exists()
            ports[name] = port
            assert service["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"].split("/")[2].split(":")[0] in services
    (scraping,) = files["prometheus.yml"]["scrape_configs"]
    assert scraping["static_configs"][0]["targets"] == [f"{name}:{port}" for name, port in ports.items()]
    assert all((FOLDER / name).exists() for name in files["prometheus.yml"]["rule_files"])
    assert len({rule["alert"] for group in files["alerts.yml"]["groups"] for rule in group["rules"]}) == 6


def test_the_dashboard() -> None:
    """Grafana's file: each panel asks for something, has a place of its own, and asks of the source that was chosen."""
    board = json.loads((FOLDER / "grafana" / "callport.json").read_text(encoding="utf-8"))
    variables = {variable["name"] for variable in board["templating"]["list"]}
    places, numbers = set(), set()
    for panel in board["panels"]:
        numbers.add(panel["id"])
        places.add((panel["gridPos"]["x"], panel["gridPos"]["y"]))
        assert panel["title"] and panel["datasource"]["uid"] == "${source}"
        for target in panel["targets"]:
            used = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval"}
            assert used and used <= variables, target["expr"]
            assert target["legendFormat"] and target["expr"].count("(") == target["expr"].count(")")
    assert len(places) == len(numbers) == len(board["panels"]) >= 8
