"""Data sets through our own doors on a real fleet: pushed, trained on, known by content, and trained on again."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.cli.rest import BASE
from tests.e2e.fleet.scenario import RECIPE, Scenario, playing
from tests.unit.trainer.tiny import texts, write_jsonl
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DATASET = "subjects"
TRAINED_SECONDS = 240.0


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenario]:
    with playing(tmp_path_factory.mktemp("datasets")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pushed(scenario: Scenario, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two files, pushed one after the other as one data set, from a folder that the trainer may not read."""
    folder = tmp_path_factory.mktemp("elsewhere")
    files = [write_jsonl(folder / f"part-{seed}.jsonl", texts(240, seed=seed)) for seed in (1, 2)]
    for file in files:
        push(scenario, file)
        until(lambda: trained(scenario, hash_of(file)), "the run has ended", TRAINED_SECONDS)  # noqa: B023
    return files


def cli(scenario: Scenario, *arguments: str) -> Any:
    """What the command prints as JSON; it knows the gateway's address and key alone."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
    environment |= {
        "MILLRACE_URL": scenario.fleet.state.endpoints["rest"],
        "MILLRACE_API_KEY_FILE": str(scenario.fleet.home.api_key_file),
    }
    command = [sys.executable, "-m", "services.cli", *arguments, "--json"]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def push(scenario: Scenario, file: Path) -> Any:
    options = ("--model", "subjects", "--name", DATASET, "--recipe", json.dumps(RECIPE), "--no-deploy")
    return cli(scenario, "datasets", "push", str(file), *options)


def trained(scenario: Scenario, content_hash: str) -> bool:
    """Whether the data set's latest run has read this content, and succeeded."""
    dataset = scenario.client.get_patiently(f"/datasets/{DATASET}")
    if dataset.status_code == 404:
        return False
    run = scenario.client.get_patiently(f"/runs/{dataset.json()['latest_run']}").json()
    assert run["status"] not in ("failed", "cancelled"), run
    return bool(run["content_hash"] == content_hash and run["status"] == "succeeded")


def hash_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_what_was_pushed_is_trained_on_and_known_by_its_content(scenario: Scenario, pushed: list[Path]) -> None:
    versions = cli(scenario, "datasets", "versions", DATASET)["versions"]
    assert [version["content_hash"] for version in versions] == [hash_of(pushed[1]), hash_of(pushed[0])]
    assert {version["rows"] for version in versions} == {240}
    assert [version["size_bytes"] for version in versions] == [file.stat().st_size for file in reversed(pushed)]
    run = cli(scenario, "runs", "show", versions[0]["latest_run"])
    assert (run["content_hash"], json.loads(run["recipe_json"])["epochs"]) == (hash_of(pushed[1]), RECIPE["epochs"])
    assert len(run["data_hash"]) == 64


def test_pushing_the_same_again_is_the_same_event_and_no_second_run(scenario: Scenario, pushed: list[Path]) -> None:
    before = len(cli(scenario, "runs", "list", "--dataset", DATASET)["runs"])
    again = [push(scenario, pushed[1]) for _ in range(2)]
    assert all(outcome["already_there"] for outcome in again)
    assert len({outcome["event_id"] for outcome in again}) == 1
    assert len(cli(scenario, "runs", "list", "--dataset", DATASET)["runs"]) == before
    retained = [path for path in (scenario.fleet.home.root / "uploads").rglob("*") if path.is_file()]
    assert sorted(path.stem for path in retained) == sorted(hash_of(file) for file in pushed)


def test_a_run_on_an_older_version_reads_that_one(scenario: Scenario, pushed: list[Path]) -> None:
    older = hash_of(pushed[0])
    run = cli(scenario, "runs", "start", DATASET, "--version", older[:10], "--no-deploy", "--reason", "once more")
    until(lambda: trained(scenario, older), "the run has ended", TRAINED_SECONDS)
    done = cli(scenario, "runs", "show", run["run"])
    assert (done["content_hash"], done["start_reason"], done["hold_back"]) == (older, "once more", True)
    assert done["started_by"].startswith("admin:")
    first = cli(scenario, "runs", "list", "--dataset", DATASET)["runs"][-1]
    assert cli(scenario, "runs", "show", first["run"])["data_hash"] == done["data_hash"]


def test_a_file_that_changed_since_its_announcement_fails_the_run(scenario: Scenario) -> None:
    file = scenario.write("changing", texts(60))
    body = {"dataset": "changing", "uri": file.as_uri(), "model": "never", "content_hash": hash_of(file)}
    file.write_text(file.read_text() + "\n")
    assert scenario.client.post("/datasets", body).status_code == 202
    failed = scenario.log.wait(
        lambda event: event.topic == "training.failed" and event.body["dataset"] == "changing", "the end of the run", 60
    )
    assert (failed.body["code"], failed.body["retryable"]) == ("content_changed", False)


def test_a_tenants_uploads_are_out_of_anothers_reach(scenario: Scenario, pushed: list[Path]) -> None:
    own = scenario.fleet.home.root / "uploads/default" / DATASET / f"{hash_of(pushed[0])}.jsonl"
    foreign = scenario.fleet.home.root / "uploads/other" / DATASET / own.name
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(own.read_bytes())
    body = {"dataset": "foreign", "uri": foreign.as_uri(), "model": "never"}
    assert scenario.client.post("/datasets", body).status_code == 202
    failed = scenario.log.wait(
        lambda event: event.topic == "training.failed" and event.body["dataset"] == "foreign", "the end of the run", 60
    )
    assert failed.body["code"] == "outside_roots"


def test_a_key_starts_one_run_through_the_gateway_and_tags_say_what_is_known(
    scenario: Scenario, pushed: list[Path]
) -> None:
    body = {"dataset": DATASET, "content_hash": hash_of(pushed[0]), "reason": "by key"}
    runs = [scenario.client.post("/runs", body, idempotency_key="key-1") for _ in range(2)]
    assert [reply.status_code for reply in runs] == [201, 201]
    assert runs[0].json()["run"] == runs[1].json()["run"]
    cancelled = cli(scenario, "runs", "cancel", runs[0].json()["run"], "--yes", "--reason", "enough")
    assert (cancelled["status"], cancelled["cancel_reason"]) == ("cancelled", "enough")
    url = f"{scenario.fleet.state.endpoints['rest']}{BASE}/datasets/{DATASET}"
    headers = {"authorization": f"Bearer {scenario.fleet.key}"}
    first = httpx.get(url, headers=headers, trust_env=False)
    again = httpx.get(url, headers=headers | {"if-none-match": first.headers["etag"]}, trust_env=False)
    assert (first.status_code, again.status_code) == (200, 304)


def test_a_gateway_that_is_killed_in_the_middle_of_an_upload_leaves_no_content(
    scenario: Scenario, pushed: list[Path]
) -> None:
    def half() -> Iterator[bytes]:
        yield b'{"text": "old iron", "label": "metal"}\n' * 20_000
        scenario.fleet.kill("gateway")
        yield b"more"

    url = scenario.fleet.state.endpoints["rest"] + BASE
    headers = {"authorization": f"Bearer {scenario.fleet.key}"}
    with pytest.raises(httpx.TransportError):
        httpx.post(f"{url}/datasets/broken/content", content=half(), headers=headers, timeout=60, trust_env=False)
    assert not (scenario.fleet.home.root / "uploads/default/broken").exists()
    assert push(scenario, pushed[0])["already_there"]
