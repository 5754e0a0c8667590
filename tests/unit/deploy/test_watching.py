"""Prometheus, Grafana, the collector and the runbooks: each metric, label, target, file and command exists."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.deploy.files import (
    DEPLOY,
    ROOT,
    VARIABLE,
    compose,
    expressions,
    known_variables,
    scraped,
    strangers,
)

ALERTS: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
RUNBOOKS = sorted(path for path in (ROOT / "docs/runbooks").glob("*.md") if path.stem != "README")


@pytest.mark.parametrize(("where", "expression"), list(expressions()), ids=lambda value: value.partition(" ")[0])
def test_a_scrape_shows_every_metric_and_label_of_an_expression(where: str, expression: str) -> None:
    assert re.search(r"\bmillrace_", expression), where
    assert strangers(expression) == set(), where


@pytest.mark.parametrize(
    ("expression", "stranger"),
    [
        ("increase(millrace_gateway_request_total[5m]) > 0", "millrace_gateway_request_total"),
        ("max by (le) (millrace_gateway_request_bucket)", "millrace_gateway_request_bucket"),
        ("millrace_gateway_requests > 0", "millrace_gateway_requests"),
        ('sum by (model) (millrace_gateway_requests_total{tenant="acme"})', "model"),
        ('millrace_consumer_lag{tenant="acme"} > 0', "tenant"),
    ],
)
def test_an_expression_that_no_scrape_answers_is_found_out(expression: str, stranger: str) -> None:
    assert stranger in strangers(expression)


def test_every_alert_says_what_alerts_must_say() -> None:
    for alert in ALERTS:
        assert alert["labels"]["severity"] in {"info", "warning", "critical"}
        assert {"summary", "description", "runbook_url"} <= set(alert["annotations"])
        assert alert["annotations"]["runbook_url"] == f"docs/runbooks/{alert['alert']}.md"
        labels = set(re.findall(r"\$labels\.(\w+)", " ".join(alert["annotations"].values())))
        remaining = {
            label.strip() for group in re.findall(r"\bby \(([^)]*)\)", alert["expr"]) for label in group.split(",")
        }
        assert labels <= remaining


def test_each_alert_has_one_runbook_of_its_name() -> None:
    assert [path.stem for path in RUNBOOKS] == sorted(alert["alert"] for alert in ALERTS)
    index = (ROOT / "docs/runbooks/README.md").read_text()
    assert all(f"({path.name})" in index for path in RUNBOOKS)


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: path.stem)
def test_a_runbook_has_its_sections_and_something_to_paste(path: Path) -> None:
    text = path.read_text()
    assert text.startswith(f"# {path.stem}\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Meaning", "Impact", "Diagnosis", "Mitigation"]
    assert re.search(r"^millrace ", text, re.MULTILINE)
    assert set(VARIABLE.findall(text)) - known_variables() == set()
    named = set(re.findall(r"`(millrace_\w+)`", text))
    assert {name for name in named if not {name, f"{name}_count"} & scraped().keys()} == set()


def test_prometheus_reads_files_that_exist_and_services_that_answer() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yaml").read_text())
    assert all((DEPLOY / "prometheus" / name).is_file() for name in config["rule_files"])
    services = compose()["services"]
    for job in config["scrape_configs"]:
        for group in job["static_configs"]:
            for target in group["targets"]:
                host, _, port = target.partition(":")
                assert f"EXPOSE {port} " in (ROOT / services[host]["build"]["dockerfile"]).read_text()
                assert group["labels"]["service"] == host


def test_prometheus_shows_a_key_that_the_kit_makes() -> None:
    from services.kit.identity.auth import SERVICE_KEY_FILE

    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yaml").read_text())
    for job in config["scrape_configs"]:
        assert job["authorization"]["credentials_file"] == f"/var/lib/millrace/keys/{SERVICE_KEY_FILE}"


def test_the_collectors_pipeline_uses_what_it_declares() -> None:
    config = yaml.safe_load((DEPLOY / "otel-collector.yaml").read_text())
    for pipeline in config["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) <= set(config[kind])
    assert config["exporters"]["otlp/jaeger"]["endpoint"].partition(":")[0] in compose()["services"]
