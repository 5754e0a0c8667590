"""The commands for a deployment's life and for its audit, on five real processes."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from services.cli.errors import Exit
from tests.e2e.fleet.scenario import Scenario, playing
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LIMIT_SECONDS = 60.0


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenario]:
    with playing(tmp_path_factory.mktemp("fleet")) as made:
        made.serve_first()
        yield made


def millrace(scenario: Scenario, *arguments: str, expected: int = 0) -> str:
    """What the command tells on standard output; what it was and all that it said stand in the test's output."""
    done = subprocess.run(
        [sys.executable, "-m", "services.cli", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        env={**os.environ, "MILLRACE_HOME": str(scenario.fleet.home.root), "NO_COLOR": "1"},
    )
    print(f"$ millrace {' '.join(arguments)}\n{done.stdout}{done.stderr}")
    assert done.returncode == expected, done.stderr
    return done.stdout


def outcome(scenario: Scenario, *arguments: str) -> Any:
    return json.loads(millrace(scenario, *arguments, "--json"))


def answers(scenario: Scenario) -> int:
    path = f"/deployments/{scenario.model}/classify"
    return scenario.client.post(path, {"texts": ["a text"]}).status_code


def test_a_deployment_is_stopped_and_brought_back_by_its_commands(scenario: Scenario) -> None:
    before = outcome(scenario, "deployments", "show", scenario.model)
    tried = outcome(scenario, "deployments", "stop", scenario.model, "--dry-run", "--reason", "only to see")
    assert (tried["dry_run"], tried["stopped"], tried["version"]) == (True, True, 0)
    assert outcome(scenario, "deployments", "show", scenario.model)["generation"] == before["generation"]
    generation = str(before["generation"])
    millrace(
        scenario,
        "deployments",
        "stop",
        scenario.model,
        "--reason",
        "nobody asks it",
        "--yes",
        "--generation",
        generation,
    )
    until(lambda: answers(scenario) == 404, "nothing is served", LIMIT_SECONDS)
    rollback = ("deployments", "rollback", scenario.model, "--yes", "--generation", generation)
    millrace(scenario, *rollback, expected=Exit.FAILED)
    millrace(scenario, "deployments", "list")
    until(lambda: not _loaded(scenario), "the replica has let it go", LIMIT_SECONDS)
    millrace(scenario, "deployments", "rollout", scenario.model, "@previous", "--reason", "asked for again")
    until(lambda: answers(scenario) == 200, "it serves again", LIMIT_SECONDS)
    assert outcome(scenario, "deployments", "show", scenario.model)["version"] == before["version"]


def test_the_history_is_listed_and_verified_and_the_lineage_is_drawn(scenario: Scenario) -> None:
    millrace(scenario, "audit", "list", "--model", scenario.model, "--limit", "8")
    verified = outcome(scenario, "audit", "verify")
    assert (verified["whole"], verified["links"]) == (True, 0)
    assert verified["facts"] == len(outcome(scenario, "audit", "list", "--limit", "1000")["entries"])
    millrace(scenario, "audit", "verify")
    drawn = millrace(scenario, "models", "lineage", scenario.model, "@champion")
    assert f"dataset {scenario.model}-first" in drawn
    millrace(scenario, "models", "alias", "set", scenario.model, "stable", "1", "--reason", "for the archive", "--yes")
    assert outcome(scenario, "models", "show", scenario.model)["aliases"]["stable"] == 1
    millrace(scenario, "registry", "rebuild", "--check")


def _loaded(scenario: Scenario) -> list[Any]:
    return list(scenario.log.all("replica.reported")[-1].body["versions"])
