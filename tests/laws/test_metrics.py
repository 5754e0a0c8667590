"""The laws of metrics: declared in one place, with the tenant whose work they measure; planted breaches are found."""

import ast
import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from services.kit.core.metrics import DECLARED
from tests.laws.source import ROOT, python_sources

SERVICES: Final = ("gateway", "inference", "monitor", "registry", "trainer")
MECHANISM: Final = Path("services/kit/core/metrics.py")
INSTRUMENTS: Final = {"Counter", "Gauge", "Histogram", "ObservableGauge", "UpDownCounter"}
LIBRARIES: Final = (
    "opentelemetry.metrics",
    "opentelemetry.sdk.metrics",
    "opentelemetry.exporter.prometheus",
    "prometheus_client",
)

WITHOUT_TENANT: Final[dict[str, str]] = {
    "millrace.build.info": "the version of a service, which all tenants share",
    "millrace.outbox.depth": "one outbox sends the events of all tenants, in one order",
    "millrace.outbox.oldest": "one outbox sends the events of all tenants, in one order",
    "millrace.consumer.lag": "a partition holds the events of all tenants, and its offsets know none",
    "millrace.gateway.replica_streams": "a replica serves all tenants over one stream",
    "millrace.gateway.limits_local": "whether Redis answers this gateway",
    "millrace.gateway.limit": "how fast Redis answers this gateway",
    "millrace.inference.queued_texts": "the replica's own capacity, which all tenants share",
}
"""Metrics of the platform itself, and why no tenant can be named."""


def without_tenant(declared: Mapping[str, Any]) -> set[str]:
    return {name for name, instrument in declared.items() if "tenant" not in instrument.attributes}


def measured_elsewhere(path: Path, text: str) -> Iterator[str]:
    """An instrument that is declared outside a `telemetry.py`, or a library of metrics that is used past the kit's."""
    if path == MECHANISM:
        return
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        names = [alias.name for alias in node.names]
        modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else names
        if modules == ["opentelemetry"]:
            modules = [f"opentelemetry.{name}" for name in names]
        for module in modules:
            if any(module == library or module.startswith(f"{library}.") for library in LIBRARIES):
                yield f"{path}:{node.lineno} imports {module}"
        if path.name != "telemetry.py" and modules == ["services.kit.core.metrics"]:
            for name in sorted(INSTRUMENTS & set(names)):
                yield f"{path}:{node.lineno} declares a {name}"


def test_every_metric_has_its_tenant_or_stands_on_the_list() -> None:
    for module in ("kit.core", *SERVICES):
        importlib.import_module(f"services.{module}.telemetry")
    declared = {name: DECLARED[name] for name in DECLARED if name.startswith("millrace.")}
    assert {name.split(".")[1] for name in declared} >= set(SERVICES)
    assert without_tenant(declared) == WITHOUT_TENANT.keys()


def test_a_metric_without_a_tenant_is_found_out() -> None:
    planted = {"millrace.gateway.new": SimpleNamespace(attributes=frozenset({"deployment"}))}
    assert without_tenant(planted) - WITHOUT_TENANT.keys() == {"millrace.gateway.new"}


def test_metrics_are_declared_where_they_are_looked_for() -> None:
    sources = [path for path in python_sources() if path.parts[0] == "services"]
    assert MECHANISM in sources
    assert [breach for path in sources for breach in measured_elsewhere(path, (ROOT / path).read_text())] == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("services/gateway/app.py", "from services.kit.core.metrics import Counter"),
        ("services/gateway/app.py", "from services.kit.core.metrics import NO_TENANT, Histogram"),
        ("services/gateway/telemetry.py", "from prometheus_client import Counter"),
        ("services/gateway/telemetry.py", "import prometheus_client.core"),
        ("services/gateway/telemetry.py", "from opentelemetry import metrics"),
        ("services/gateway/telemetry.py", "from opentelemetry.metrics import get_meter"),
        ("services/kit/core/telemetry.py", "from opentelemetry.sdk.metrics import MeterProvider"),
    ],
)
def test_a_metric_that_is_declared_elsewhere_is_found_out(name: str, text: str) -> None:
    assert list(measured_elsewhere(Path(name), text))
