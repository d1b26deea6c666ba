"""examples/observed: what `docker compose` would run, without containers."""

import re
import shlex
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
    """Calls are counted on both sides, and every name that an alert asks for is among the metrics."""
    metrics, endpoint = service
    caller = program("caller", endpoint, "0", "20")
    assert caller.stdout is not None
    theirs = scraped(caller.stdout.readline().split()[-1])
    output, complaints = caller.communicate(timeout=LIMIT)
    assert (caller.returncode, complaints, output) == (0, "", "4 faults\n")
    wait_until(lambda: scraped(metrics)["callport_server_calls_in_total"] == 20)
    ours = scraped(metrics)
    assert ours["callport_server_calls_out_total"] == 0 and "callport_pool_workers" in ours
    asked = set(re.findall(r"callport_\w+", (FOLDER / "alerts.yml").read_text(encoding="utf-8")))
    assert len(asked) > 5 and asked <= ours.keys() | theirs.keys()


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
