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
from tests.e2e.fleet.story import RECIPE, Story, playing
from tests.unit.trainer.tiny import texts, write_jsonl
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DATASET = "subjects"
TRAINED_SECONDS = 240.0


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with playing(tmp_path_factory.mktemp("datasets")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pushed(story: Story, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two files, pushed one after the other as one data set, from a folder that the trainer may not read."""
    folder = tmp_path_factory.mktemp("elsewhere")
    files = [write_jsonl(folder / f"part-{seed}.jsonl", texts(240, seed=seed)) for seed in (1, 2)]
    for file in files:
        push(story, file)
        until(lambda: trained(story, hash_of(file)), "the run has ended", TRAINED_SECONDS)  # noqa: B023
    return files


def cli(story: Story, *arguments: str) -> Any:
    """What the command prints as JSON; it knows the gateway's address and key alone."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
    environment |= {
        "MILLRACE_URL": story.fleet.state.endpoints["rest"],
        "MILLRACE_API_KEY_FILE": str(story.fleet.home.api_key_file),
    }
    command = [sys.executable, "-m", "services.cli", *arguments, "--json"]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def push(story: Story, file: Path) -> Any:
    options = ("--model", "subjects", "--name", DATASET, "--recipe", json.dumps(RECIPE), "--hold-back")
    return cli(story, "datasets", "push", str(file), *options)


def trained(story: Story, content_hash: str) -> bool:
    """Whether the data set's latest run has read this content, and succeeded."""
    dataset = story.client.get_patiently(f"/datasets/{DATASET}")
    if dataset.status_code == 404:
        return False
    run = story.client.get_patiently(f"/runs/{dataset.json()['latest_run']}").json()
    assert run["status"] not in ("failed", "cancelled"), run
    return bool(run["content_hash"] == content_hash and run["status"] == "succeeded")


def hash_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_what_was_pushed_is_trained_on_and_known_by_its_content(story: Story, pushed: list[Path]) -> None:
    versions = cli(story, "datasets", "versions", DATASET)["versions"]
    assert [version["content_hash"] for version in versions] == [hash_of(pushed[1]), hash_of(pushed[0])]
    assert {version["rows"] for version in versions} == {240}
    assert [version["size_bytes"] for version in versions] == [file.stat().st_size for file in reversed(pushed)]
    run = cli(story, "runs", "show", versions[0]["latest_run"])
    assert (run["content_hash"], json.loads(run["recipe_json"])["epochs"]) == (hash_of(pushed[1]), RECIPE["epochs"])
    assert len(run["data_hash"]) == 64


def test_pushing_the_same_again_is_the_same_event_and_no_second_run(story: Story, pushed: list[Path]) -> None:
    before = len(cli(story, "runs", "list", "--dataset", DATASET)["runs"])
    again = [push(story, pushed[1]) for _ in range(2)]
    assert all(told["already_there"] for told in again)
    assert len({told["event_id"] for told in again}) == 1
    assert len(cli(story, "runs", "list", "--dataset", DATASET)["runs"]) == before
    kept = [path for path in (story.fleet.home.root / "uploads").rglob("*") if path.is_file()]
    assert sorted(path.stem for path in kept) == sorted(hash_of(file) for file in pushed)


def test_a_run_on_an_older_version_reads_that_one(story: Story, pushed: list[Path]) -> None:
    older = hash_of(pushed[0])
    run = cli(story, "runs", "start", DATASET, "--version", older[:10], "--hold-back", "--reason", "once more")
    until(lambda: trained(story, older), "the run has ended", TRAINED_SECONDS)
    done = cli(story, "runs", "show", run["run"])
    assert (done["content_hash"], done["start_reason"], done["hold_back"]) == (older, "once more", True)
    assert done["started_by"].startswith("admin:")
    first = cli(story, "runs", "list", "--dataset", DATASET)["runs"][-1]
    assert cli(story, "runs", "show", first["run"])["data_hash"] == done["data_hash"]


def test_a_file_that_changed_since_its_announcement_fails_the_run(story: Story) -> None:
    file = story.write("changing", texts(60))
    body = {"dataset": "changing", "uri": file.as_uri(), "model": "never", "content_hash": hash_of(file)}
    file.write_text(file.read_text() + "\n")
    assert story.client.post("/datasets", body).status_code == 202
    failed = story.log.wait(
        lambda event: event.topic == "training.failed" and event.body["dataset"] == "changing", "the end of the run", 60
    )
    assert (failed.body["code"], failed.body["retryable"]) == ("content_changed", False)


def test_a_tenants_uploads_are_out_of_anothers_reach(story: Story, pushed: list[Path]) -> None:
    own = story.fleet.home.root / "uploads/default" / DATASET / f"{hash_of(pushed[0])}.jsonl"
    foreign = story.fleet.home.root / "uploads/other" / DATASET / own.name
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(own.read_bytes())
    body = {"dataset": "foreign", "uri": foreign.as_uri(), "model": "never"}
    assert story.client.post("/datasets", body).status_code == 202
    failed = story.log.wait(
        lambda event: event.topic == "training.failed" and event.body["dataset"] == "foreign", "the end of the run", 60
    )
    assert failed.body["code"] == "outside_roots"


def test_a_key_starts_one_run_through_the_gateway_and_tags_tell_what_is_known(story: Story, pushed: list[Path]) -> None:
    body = {"dataset": DATASET, "content_hash": hash_of(pushed[0]), "reason": "by key"}
    runs = [story.client.post("/runs", body, idempotency_key="key-1") for _ in range(2)]
    assert [reply.status_code for reply in runs] == [201, 201]
    assert runs[0].json()["run"] == runs[1].json()["run"]
    cancelled = cli(story, "runs", "cancel", runs[0].json()["run"], "--yes", "--reason", "enough")
    assert (cancelled["status"], cancelled["cancel_reason"]) == ("cancelled", "enough")
    url = f"{story.fleet.state.endpoints['rest']}{BASE}/datasets/{DATASET}"
    headers = {"authorization": f"Bearer {story.fleet.key}"}
    first = httpx.get(url, headers=headers, trust_env=False)
    again = httpx.get(url, headers=headers | {"if-none-match": first.headers["etag"]}, trust_env=False)
    assert (first.status_code, again.status_code) == (200, 304)


def test_a_gateway_that_is_killed_in_the_middle_of_an_upload_leaves_no_content(
    story: Story, pushed: list[Path]
) -> None:
    def half() -> Iterator[bytes]:
        yield b'{"text": "old iron", "label": "metal"}\n' * 20_000
        story.fleet.kill("gateway")
        yield b"more"

    url = story.fleet.state.endpoints["rest"] + BASE
    headers = {"authorization": f"Bearer {story.fleet.key}"}
    with pytest.raises(httpx.TransportError):
        httpx.post(f"{url}/datasets/broken/content", content=half(), headers=headers, timeout=60, trust_env=False)
    assert not (story.fleet.home.root / "uploads/default/broken").exists()
    assert push(story, pushed[0])["already_there"]
