"""`millrace deployments create | change | delete`: what they send, and what they show."""

import json
from typing import Any

from services.cli.commands.deployments import traffic
from tests.unit.cli.test_commands import DEPLOYMENT, Gateway, gateway, run

__all__ = ["gateway"]

SPECIFIED: dict[str, Any] = {
    **DEPLOYMENT,
    "serving_model": "topics",
    "placement": {"replicas": 2, "device": "cuda", "quorum": 1},
    "policy": {"weights": [5, 25]},
    "approval": "manual",
    "automatic": True,
    "compare": False,
}


def test_a_deployment_is_created_with_what_was_given_and_nothing_else(gateway: Gateway) -> None:
    gateway.answers["POST", "/api/v1/deployments"] = (201, SPECIFIED)
    done = run("deployments", "create", "staging", "--model", "topics", "--replicas", "2", "--device", "cuda",
               "--weights", "5, 25", "--approval", "manual", "--no-compare")  # fmt: skip
    assert json.loads(gateway.requested[0].content) == {
        "deployment": "staging", "model": "topics", "replicas": 2, "device": "cuda", "policy": {"weights": [5, 25]},
        "approval": "manual", "compare": False, "reason": "asked for on the command line", "dry_run": False,
    }  # fmt: skip
    assert (
        "serves topics on 2 replicas on cuda, 1 of them ready before traffic moves; canary 5, 25 %; "
        "rollouts start by themselves, once a person has approved them, without a comparison"
    ) in done.stdout.replace("\n", " ")
    assert "next: millrace deployments rollout staging VERSION" in done.stderr


def test_a_change_needs_something_to_change_and_numbers_for_weights(gateway: Gateway) -> None:
    assert "nothing to change" in run("deployments", "change", "topics").stderr
    assert "no list of percentages" in run("deployments", "change", "topics", "--weights", "some").stderr
    assert gateway.requested == []


def test_a_move_to_another_model_says_what_comes_next(gateway: Gateway) -> None:
    gateway.answers["PATCH", "/api/v1/deployments/topics"] = (200, {**SPECIFIED, "model": "essays"})
    done = run("deployments", "change", "topics", "--model", "essays", "--by-hand", "--generation", "4")
    sent = json.loads(gateway.requested[0].content)
    assert (sent["model"], sent["automatic"], sent["expected_generation"]) == ("essays", False, 4)
    assert "next: millrace deployments rollout topics VERSION" in done.stderr


def test_a_deletion_asks_first_and_says_what_became_of_it(gateway: Gateway) -> None:
    gateway.answers["DELETE", "/api/v1/deployments/topics"] = (200, {**DEPLOYMENT, "targets": [], "deleted": True})
    assert "--yes" in run("deployments", "delete", "topics").stderr
    done = run("deployments", "delete", "topics", "--yes")
    assert "deleted" in done.stdout
    assert "next: millrace deployments list" in done.stderr


def test_versions_of_two_models_are_distinct(gateway: Gateway) -> None:
    targets = [{**DEPLOYMENT["targets"][0], "model": model} for model in ("topics", "essays")]
    gateway.answers["GET", "/api/v1/deployments"] = (200, {"deployments": [{**DEPLOYMENT, "targets": targets}]})
    listed = json.loads(run("deployments", "list", "--json").stdout)["deployments"]
    assert traffic(listed[0]) == "topics v1 100% (primary, int8), essays v1 100% (primary, int8)"


def test_the_facts_of_a_deployment_are_listed_and_not_those_of_two_streams_at_once(gateway: Gateway) -> None:
    gateway.answers["GET", "/api/v1/history"] = (200, {"entries": []})
    run("audit", "list", "--deployment", "topics")
    assert "stream=deployment%2Ftopics" in gateway.requested[0].path
    assert "choose a model or a deployment" in run("audit", "list", "--deployment", "topics", "--model", "m").stderr
