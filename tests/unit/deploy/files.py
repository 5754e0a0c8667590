"""What the deploy files name, read from them, and what of it the code has."""

import functools
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import AliasChoices

from services.kit.core.settings import ServiceSettings

ROOT: Final = Path(__file__).resolve().parents[3]
DEPLOY: Final = ROOT / "deploy"
SERVICE_NAMES: Final = ("gateway", "inference", "monitor", "registry", "trainer")
DOCKERFILES: Final = sorted((DEPLOY / "docker").glob("*.Dockerfile"))

TARGET_LABELS: Final = {"service", "job", "instance"}
"""What Prometheus adds to each series of a target."""
OTHERS: Final = {
    # Not ours: the OpenTelemetry SDK's.
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_METRICS_EXPORTER",
    "OTEL_LOGS_EXPORTER",
    "OTEL_METRIC_EXPORT_INTERVAL",
}
VARIABLE: Final = re.compile(r"\b(?:MILLRACE|OTEL)_[A-Z][A-Z_0-9]*\b|\bKAFKA_BOOTSTRAP_SERVERS\b")


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def manifests() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every Kubernetes object with the file it stands in."""
    for path in sorted((DEPLOY / "k8s").glob("*.yaml")):
        if path.name != "kustomization.yaml":
            for document in yaml.safe_load_all(path.read_text()):
                yield path, document


def settings_of(service: str) -> type[ServiceSettings]:
    module = importlib.import_module(f"services.{service}.settings")
    return next(
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, ServiceSettings) and value is not ServiceSettings
    )


def variables_of(settings: type[ServiceSettings]) -> set[str]:
    """The names by which the environment sets it."""
    prefix = str(settings.model_config.get("env_prefix", ""))
    names = set()
    for name, field in settings.model_fields.items():
        alias = field.validation_alias
        names.add(str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"{prefix}{name}".upper())
    return names


def known_variables() -> set[str]:
    return set().union(*(variables_of(settings_of(service)) for service in SERVICE_NAMES)) | OTHERS


@functools.cache
def scraped() -> dict[str, set[str]]:
    """The labels of every series that a scrape of the services can show, by the series' name."""
    script = [sys.executable, "-m", "tests.unit.deploy.scrape", *SERVICE_NAMES]
    shown = subprocess.run(script, cwd=ROOT, check=True, capture_output=True, text=True, timeout=120)
    return {name: set(labels) for name, labels in json.loads(shown.stdout).items()}


def strangers(expression: str) -> set[str]:
    """The metrics and the labels of a PromQL expression that no scrape shows."""
    metrics = set(re.findall(r"\bmillrace_\w+", expression))
    carried = set().union(TARGET_LABELS, *(scraped().get(metric, set()) for metric in metrics))
    named = set(re.findall(r"(\w+)\s*=~?\"", expression))
    for group in re.findall(r"\bby \(([^)]*)\)", expression):
        named |= {label.strip() for label in group.split(",")}
    return (metrics - scraped().keys()) | (named - carried)


def expressions() -> Iterator[tuple[str, str]]:
    """Every PromQL expression of the alerts and of the dashboard, with where it stands."""
    for group in yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    for path in sorted((DEPLOY / "grafana").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", ()):
                yield f"{path.name}: {panel['title']}", target["expr"]


def pasted(path: Path) -> list[str]:
    """The `millrace` lines of a document's shell blocks."""
    blocks = re.findall(r"^```sh\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("millrace ")]
