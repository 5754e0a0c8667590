"""`millrace batches`: what is asked of the gateway, and what is told of its answer."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.cli.errors import Exit
from tests.unit.cli.test_commands import Gateway, gateway, run  # noqa: F401 - the fixture

BATCH: dict[str, Any] = {
    "batch": "batch-1",
    "deployment": "topics",
    "uri": "file:///data/x.jsonl",
    "status": "succeeded",
    "progress": 1.0,
    "rows": 3,
    "failed_rows": 1,
    "attempt": 1,
    "output_uri": "file:///results/output.jsonl",
    "trace_id": "ab" * 16,
}
UPLOADED: dict[str, Any] = {"uri": "file:///u/default/texts/0.jsonl", "already_there": False}


def test_a_local_file_is_uploaded_first(gateway: Gateway, tmp_path: Path) -> None:  # noqa: F811
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "a"}\n')
    gateway.answers["POST", "/api/v1/datasets/texts/content"] = (201, UPLOADED)
    gateway.answers["POST", "/api/v1/batches"] = (202, {**BATCH, "status": "queued"})
    done = run("batches", "create", str(file), "-d", "topics", "--json")
    assert done.exit_code == Exit.DONE, done.output
    uploaded, requested = gateway.requested
    assert uploaded.content == file.read_bytes()
    sent = json.loads(requested.content)
    assert (sent["uri"], sent["deployment"], sent["format"]) == (UPLOADED["uri"], "topics", "jsonl")
    assert requested.headers["idempotency-key"]
    assert "next: millrace batches show batch-1" in done.stderr


def test_a_dry_run_asks_nobody(gateway: Gateway, tmp_path: Path) -> None:  # noqa: F811
    file = tmp_path / "texts.csv"
    file.write_text("text\na\n")
    done = run("batches", "create", str(file), "-d", "topics", "--dry-run")
    assert (done.exit_code, gateway.requested) == (Exit.DONE, [])


@pytest.mark.parametrize("file", ["missing.jsonl", "texts.parquet"])
def test_a_file_that_cannot_be_a_batch_is_wrong_usage(gateway: Gateway, file: str) -> None:  # noqa: F811
    assert run("batches", "create", file, "-d", "topics").exit_code == Exit.USAGE
    assert gateway.requested == []


def test_waiting_ends_with_the_batch_and_a_failed_one_is_a_failure(gateway: Gateway) -> None:  # noqa: F811
    failed = {**BATCH, "status": "failed", "failure_code": "bad_row", "failure_reason": "no", "failure_row": 3}
    gateway.answers["POST", "/api/v1/batches"] = (202, {**BATCH, "status": "queued"})
    gateway.answers["GET", "/api/v1/batches/batch-1"] = (200, failed)
    done = run("batches", "create", "file:///data/x.jsonl", "-d", "topics", "--wait")
    assert done.exit_code == Exit.FAILED
    assert "bad_row: no (row 3)" in done.stdout


def test_the_list_shows_how_far_each_is(gateway: Gateway) -> None:  # noqa: F811
    gateway.answers["GET", "/api/v1/batches"] = (200, {"batches": [BATCH]})
    done = run("batches", "list")
    assert "100%" in done.stdout
    assert "batch-1" in done.stdout
