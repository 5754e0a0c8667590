"""The commands for a deployment's life and for its audit, on five real processes."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from services.cli.errors import Exit
from tests.e2e.fleet.story import Story, playing
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LIMIT_SECONDS = 60.0


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with playing(tmp_path_factory.mktemp("fleet")) as made:
        made.serve_first()
        yield made


def millrace(story: Story, *arguments: str, expected: int = 0) -> str:
    """What the command tells on standard output; what it was and all that it said stand in the test's output."""
    done = subprocess.run(
        [sys.executable, "-m", "services.cli", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        env={**os.environ, "MILLRACE_HOME": str(story.fleet.home.root), "NO_COLOR": "1"},
    )
    print(f"$ millrace {' '.join(arguments)}\n{done.stdout}{done.stderr}")
    assert done.returncode == expected, done.stderr
    return done.stdout


def told(story: Story, *arguments: str) -> Any:
    return json.loads(millrace(story, *arguments, "--json"))


def answers(story: Story) -> int:
    path = f"/deployments/{story.model}/classify"
    return story.client.post(path, {"texts": ["a text"]}).status_code


def test_a_deployment_is_stopped_and_brought_back_by_its_commands(story: Story) -> None:
    before = told(story, "deployments", "show", story.model)
    tried = told(story, "deployments", "stop", story.model, "--dry-run", "--reason", "only to see")
    assert (tried["dry_run"], tried["stopped"], tried["version"]) == (True, True, 0)
    assert told(story, "deployments", "show", story.model)["generation"] == before["generation"]
    generation = str(before["generation"])
    millrace(
        story, "deployments", "stop", story.model, "--reason", "nobody asks it", "--yes", "--generation", generation
    )
    until(lambda: answers(story) == 404, "nothing is served", LIMIT_SECONDS)
    rollback = ("deployments", "rollback", story.model, "--yes", "--generation", generation)
    millrace(story, *rollback, expected=Exit.FAILED)
    millrace(story, "deployments", "list")
    until(lambda: not _loaded(story), "the replica has let it go", LIMIT_SECONDS)
    millrace(story, "deployments", "rollout", story.model, "@previous", "--reason", "asked for again")
    until(lambda: answers(story) == 200, "it serves again", LIMIT_SECONDS)
    assert told(story, "deployments", "show", story.model)["version"] == before["version"]


def test_the_history_is_listed_and_verified_and_the_lineage_is_drawn(story: Story) -> None:
    millrace(story, "audit", "list", "--model", story.model, "--limit", "8")
    verified = told(story, "audit", "verify")
    assert (verified["whole"], verified["links"]) == (True, 0)
    assert verified["facts"] == len(told(story, "audit", "list", "--limit", "1000")["entries"])
    millrace(story, "audit", "verify")
    drawn = millrace(story, "models", "lineage", story.model, "@champion")
    assert f"dataset {story.model}-first" in drawn
    millrace(story, "models", "alias", "set", story.model, "stable", "1", "--reason", "for the archive", "--yes")
    assert told(story, "models", "show", story.model)["aliases"]["stable"] == 1
    millrace(story, "registry", "rebuild", "--check")


def _loaded(story: Story) -> list[Any]:
    return list(story.log.all("replica.reported")[-1].body["versions"])
