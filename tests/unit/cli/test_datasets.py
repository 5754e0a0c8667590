"""`millrace datasets` and `millrace runs`: what is sent, what is told, and how far an upload is."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from services.cli.errors import Exit
from services.cli.output import Output
from services.cli.uploading import LINE_EVERY_BYTES, progress
from tests.unit.cli.test_commands import Gateway, gateway, run

__all__ = ["gateway"]

CONTENT = b'{"text": "old iron", "label": "metal"}\n' * 10
HASH = hashlib.sha256(CONTENT).hexdigest()
UPLOADED = {
    "dataset": "my-data", "format": "jsonl", "uri": f"file:///u/my-data/{HASH}.jsonl", "content_hash": HASH,
    "size_bytes": len(CONTENT), "already_there": False,
}  # fmt: skip
VERSION = {
    "dataset": "my-data", "content_hash": HASH, "uri": "file:///u/x.jsonl", "format": "jsonl", "model": "topics",
    "size_bytes": 390, "rows": 10, "announced_at": "2026-01-01T00:00:00Z", "latest_run": "run-1",
}  # fmt: skip
RUN = {
    "run": "run-2", "model": "topics", "dataset": "my-data", "content_hash": HASH, "status": "queued", "cause": "c",
    "attempt": 0, "slices": [], "started_by": "admin:1", "start_reason": "again",
}  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "My Data.jsonl"
    path.write_bytes(CONTENT)
    return path


def push(file: Path, *more: str) -> Any:
    return run("datasets", "push", str(file), "--model", "topics", *more)


def takes_uploads(gateway: Gateway) -> None:
    gateway.answers["POST", "/api/v1/datasets/my-data/content"] = (201, UPLOADED)
    gateway.answers["POST", "/api/v1/datasets"] = (202, {"event_id": "e", "trace_id": "t"})


def test_a_file_is_uploaded_and_then_announced_with_its_content_hash(gateway: Gateway, file: Path) -> None:
    takes_uploads(gateway)
    done = push(file, "--json", "--recipe", '{"epochs": 3}')
    assert json.loads(done.stdout)["content_hash"] == HASH
    assert "KiB" not in done.stderr
    uploaded, announced = gateway.requested
    assert (uploaded.content, uploaded.headers["content-length"]) == (CONTENT, str(len(CONTENT)))
    assert uploaded.path.partition("?")[2] == f"format=jsonl&sha256={HASH}&size_bytes={len(CONTENT)}"
    sent = json.loads(announced.content)
    assert (sent["uri"], sent["content_hash"], sent["recipe_json"]) == (UPLOADED["uri"], HASH, '{"epochs": 3}')


def test_the_same_push_has_the_same_key_and_another_one_another(gateway: Gateway, file: Path) -> None:
    takes_uploads(gateway)
    for more in ((), (), ("--no-deploy",)):
        assert push(file, *more).exit_code == Exit.DONE
    keys = [request.headers["idempotency-key"] for request in gateway.requested if "idempotency-key" in request.headers]
    assert len(keys) == 3
    assert keys[0] == keys[1] != keys[2]


def test_without_a_terminal_progress_is_plain_lines_on_standard_error(gateway: Gateway, file: Path) -> None:
    takes_uploads(gateway)
    done = push(file)
    assert "My Data.jsonl: 0.4 of 0.4 KiB" in done.stderr
    assert "\x1b" not in done.stderr
    assert "KiB" not in done.stdout
    assert "next: millrace runs list --dataset my-data" in done.stderr


def test_a_large_upload_says_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    size = 3 * LINE_EVERY_BYTES + 1
    with progress(Output(), "big.csv", size) as advance:
        for _ in range(0, size - 1, 1024 * 1024):
            advance(1024 * 1024)
        advance(1)
    gone = ("16.0", "32.0", "48.0", "48.0")
    assert capsys.readouterr().err.splitlines() == [f"big.csv: {count} of 48.0 MiB" for count in gone]


def test_a_dry_run_sends_nothing(gateway: Gateway, file: Path) -> None:
    done = push(file, "--dry-run")
    assert HASH in done.stdout
    assert gateway.requested == []


def test_an_upload_that_is_refused_announces_nothing(gateway: Gateway, file: Path) -> None:
    error = {"code": "store_full", "message": "The upload store is full.", "hint": "free space in it"}
    gateway.answers["POST", "/api/v1/datasets/my-data/content"] = (507, {"error": error})
    done = push(file)
    assert done.exit_code == Exit.FAILED
    assert "The upload store is full." in done.stderr
    assert len(gateway.requested) == 1


def test_versions_are_listed_and_the_oldest_can_be_trained_on(gateway: Gateway) -> None:
    response = {"versions": [VERSION], "next_page_token": HASH}
    gateway.answers["GET", "/api/v1/datasets/my-data/versions"] = (200, response)
    done = run("datasets", "versions", "my-data", "--limit", "1")
    assert HASH[:12] in done.stdout
    assert f"next: millrace datasets versions my-data --page {HASH}" in done.stderr
    assert f"next: millrace runs start my-data --version {HASH[:12]}" in done.stderr
    assert gateway.requested[0].path.endswith("?page_size=1")


def test_a_data_set_and_one_version_of_it_are_shown(gateway: Gateway) -> None:
    response = {**VERSION, "name": "my-data", "version": VERSION}
    gateway.answers["GET", "/api/v1/datasets/my-data"] = (200, response)
    gateway.answers["GET", f"/api/v1/datasets/my-data/versions/{HASH[:8]}"] = (200, VERSION)
    for arguments in (("my-data",), ("my-data", HASH[:8])):
        done = run("datasets", "show", *arguments)
        assert f"content_hash  {HASH}" in done.stdout
        assert "rows          10" in done.stdout
    assert run("datasets", "show", "nothing").exit_code == Exit.NOT_FOUND


def test_a_run_is_started_on_an_older_version_with_a_key(gateway: Gateway) -> None:
    gateway.answers["POST", "/api/v1/runs"] = (201, RUN)
    done = run("runs", "start", "my-data", "--version", HASH[:8], "--recipe", '{"epochs": 1}', "--no-deploy")
    assert "run-2" in done.stdout
    assert "next: millrace runs logs run-2 --follow" in done.stderr
    assert json.loads(gateway.requested[0].content) == {
        "dataset": "my-data", "content_hash": HASH[:8], "model": "", "recipe_json": '{"epochs": 1}', "hold_back": True,
        "reason": "asked for on the command line",
    }  # fmt: skip
    assert gateway.requested[0].headers["idempotency-key"]
    run("runs", "start", "my-data", "--key", "mine")
    assert gateway.requested[1].headers["idempotency-key"] == "mine"


def test_a_dry_run_of_a_start_only_looks(gateway: Gateway) -> None:
    gateway.answers["GET", f"/api/v1/datasets/my-data/versions/{HASH[:8]}"] = (200, VERSION)
    done = run("runs", "start", "my-data", "--version", HASH[:8], "--dry-run")
    assert f"would train topics on my-data, content {HASH}" in done.stdout
    assert [request.method for request in gateway.requested] == ["GET"]


def test_runs_are_listed_by_filters_page_by_page(gateway: Gateway) -> None:
    gateway.answers["GET", "/api/v1/runs"] = (200, {"runs": [RUN], "next_page_token": "run-2"})
    done = run("runs", "list", "--dataset", "my-data", "--since", "2026-01-01T00:00:00Z", "--limit", "1")
    query = gateway.requested[0].path.partition("?")[2]
    assert query == "dataset=my-data&since=2026-01-01T00%3A00%3A00Z&page_size=1"
    expected = "next: millrace runs list --dataset my-data --since 2026-01-01T00:00:00Z --page run-2"
    assert expected in done.stderr
