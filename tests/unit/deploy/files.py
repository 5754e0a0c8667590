"""What the deploy files name, read from them, and what of it the code has."""

import importlib
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml
from prometheus_client import REGISTRY
from pydantic import AliasChoices

from services.kit.core.settings import ServiceSettings

ROOT: Final = Path(__file__).resolve().parents[3]
DEPLOY: Final = ROOT / "deploy"
ROOMS: Final = ("gateway", "inference", "monitor", "registry", "trainer")
DOCKERFILES: Final = sorted((DEPLOY / "docker").glob("*.Dockerfile"))

OTHERS: Final = {
    # Not ours: the OpenTelemetry SDK's.
    "OTEL_EXPORTER_OTLP_ENDPOINT",
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


def settings_of(room: str) -> type[ServiceSettings]:
    module = importlib.import_module(f"services.{room}.settings")
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
    return set().union(*(variables_of(settings_of(room)) for room in ROOMS)) | OTHERS


def metric_names() -> set[str]:
    """Every series that a service can show, after importing all that declare any."""
    importlib.import_module("services.kit.core.telemetry")
    for room in ROOMS:
        if importlib.util.find_spec(f"services.{room}.telemetry"):
            importlib.import_module(f"services.{room}.telemetry")
    names = set()
    for family in REGISTRY.collect():
        names.add(family.name)
        names.add(f"{family.name}_total")
        if family.type == "histogram":
            names |= {f"{family.name}{suffix}" for suffix in ("_bucket", "_sum", "_count")}
        if family.type == "info":
            names.add(f"{family.name}_info")
    return names


def labels_of(metric: str) -> set[str]:
    """The labels that a declared metric carries."""
    for collector in set(REGISTRY._collector_to_names):
        if metric in REGISTRY._collector_to_names[collector]:
            return set(getattr(collector, "_labelnames", ()))
    return set()


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
