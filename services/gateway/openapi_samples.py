"""What each field looks like, for the examples of `openapi.json`: one deployment, `topics`, and its story.

A field is looked up as `Message.field`, then as `field`. Every field has a sample; a test names those that lack one.
"""

from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

TIMESTAMP: Final = "google.protobuf.Timestamp"
DIGEST: Final = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
TRACE_ID: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
RECIPE: Final = '{"epochs":2,"max_length":128}'
EVIDENCE: Final = '[{"indicator":"correctness","pairs":214,"candidate":0.86,"champion":0.85,"decision":"safe"}]'

SAMPLES: Final[dict[str, Any]] = {
    # --- names and numbers
    "actor": "operator:1f0c9a2e",
    "alias": "challenger",
    "aliases": ["champion"],
    "attempt": 1,
    "batch": "batch-01k9rn0c3v5b7n9m1q2w4e6r8t",
    "base_model": "all-MiniLM-L6-v2",
    "code_version": "0.1.0",
    "data_hash": DIGEST[::-1],
    "dataset": "docstrings-2026-11",
    "deployment": "topics",
    "event_id": "evt-01k9rm4z7q8w2e5t6y3v0x1c9b",
    "generation": 7,
    "id": "rollout-01k9rm6h2d4f8s0a1q3w5e7r9t",
    "latest_run": "run-01k9rm50a1s2d3f4g5h6j7k8m9",
    "model": "topics",
    "name": "topics",
    "number": 3,
    "parent": 2,
    "manifest_uri": "file:///var/lib/millrace/batches/default/batch-01k9rn0c3v5b7n9m1q2w4e6r8t/manifest.json",
    "output_sha256": DIGEST,
    "output_uri": "file:///var/lib/millrace/batches/default/batch-01k9rn0c3v5b7n9m1q2w4e6r8t/output.jsonl",
    "precision": "int8",
    "rollout": "rollout-01k9rm6h2d4f8s0a1q3w5e7r9t",
    "run": "run-01k9rm50a1s2d3f4g5h6j7k8m9",
    "sequence": 42,
    "step": 1,
    "trace_id": TRACE_ID,
    "version": 3,
    "weight": 100,
    # --- data sets and training
    "accuracy": 0.861,
    "agreement": 0.994,
    "announced_at": "2026-11-03T12:00:00Z",
    "cause": "dataset.ready docstrings-2026-11",
    "created_at": "2026-11-03T12:00:01Z",
    "digest": DIGEST,
    "ended_at": "2026-11-03T12:04:37Z",
    "failed_rows": 3,
    "failure_code": "",
    "failure_reason": "",
    "failure_row": 0,
    "format": "jsonl",
    "group_column": "module",
    "high": 0.879,
    "hold_back": False,
    "label_column": "label",
    "low": 0.842,
    "macro_f1": 0.858,
    "progress": 1.0,
    "recipe_json": RECIPE,
    "rows": 500,
    "signer": "key-1",
    "size_kib": 24_320,
    "speedup": 2.4,
    "split_column": "split",
    "text": "epoch 2 of 2: loss 0.412",
    "text_column": "text",
    "tfidf_macro_f1": 0.772,
    "uri": "file:///var/lib/millrace/datasets/docstrings.jsonl",
    # --- the registry
    "at": "2026-11-03T12:05:02Z",
    "changed_at": "2026-11-03T12:09:40Z",
    "detail": "no worse than version 2 by more than 0.02",
    "detail_json": '{"model":"topics","alias":"champion","version":3}',
    "dry_run": False,
    "evidence_json": EVIDENCE,
    "kind": "alias_moved",
    "limit": 0.02,
    "passed": True,
    "reason": "better on the new sources",
    "registered_at": "2026-11-03T12:04:38Z",
    "role": "primary",
    "skip_gate": False,
    "started_at": "2026-11-03T12:05:02Z",
    "value": 0.004,
    "weights": [10, 50],
    "as_of": "2026-11-03T12:10:00Z",
    "bake_seconds": 30.0,
    "expected_generation": 7,
    "facts": {"precision": "int8", "status": "passed"},
    "hash": DIGEST,
    "newest_first": False,
    "previous_hash": DIGEST[1:] + "0",
    "relation": "produced",
    "since": "2026-11-03T00:00:00Z",
    "source": "run/run-01k9rm50a1s2d3f4g5h6j7k8m9",
    "stopped": False,
    "tenant": "default",
    "until": "2026-11-04T00:00:00Z",
    "whole_chain": False,
    "minimum_requests": 200,
    "step_timeout_seconds": 3600.0,
    "mirror": 0.5,
    # --- requests and what is watched of them
    "answered": 214,
    "bandwidth": 1.27,
    "baseline_rows": 500,
    "closed_at": "2026-11-03T12:20:00Z",
    "errors": 2,
    "label": "files",
    "labelled": 120,
    "latency_p50_ms": 6.1,
    "latency_p99_ms": 18.4,
    "opened_at": "2026-11-03T12:19:12Z",
    "p_value": 0.41,
    "permutations": 200,
    "request_id": "req-01k9rmb3x5c7v9b1n2m4a6s8d0",
    "requests": 4213,
    "score": 0.93,
    "statistic": 0.0031,
    "sticky_key": "user-17",
    "test": "mmd-rbf",
    "texts": ["Return a new path with the suffix changed.", "Sort the rows of a table by one column."],
    "tokens": 22,
    "values": [0.0312, -0.0571, 0.0844],
    "whole_texts": True,
    "window_rows": 200,
    "with_embeddings": False,
    # --- keys
    "burst": 40,
    "concurrent": 8,
    "created_by": "admin:5b1c7d90",
    "even_if_last": False,
    "expires_at": "2027-02-01T12:00:00Z",
    "key": "1f0c9a2e",
    "last_used_at": "2026-11-03T12:20:00Z",
    "requests_per_second": 20.0,
    "revoked_at": "2026-12-24T18:00:00Z",
    "revoked_by": "admin:5b1c7d90",
    "secret": "mr_1f0c9a2e_thesecretthatisshownonce",
    "tokens_per_minute": 200_000,
    "valid_seconds": 7_776_000,
    "with_revoked": False,
    # --- pages
    "after_line": 0,
    "after_sequence": 41,
    "follow": False,
    "next_page_token": "",
    "page_size": 50,
    "page_token": "",
    "stream": "model/topics",
    # --- the same word, meant otherwise
    "Batch.status": "succeeded",
    "Batch.versions": [3],
    "BatchRow.embedding": "",
    "BatchRow.row": 17,
    "ListBatchesRequest.status": "running",
    "RowError.code": "bad_field",
    "RowError.message": "The field 'texts[0]' is not valid: it is empty.",
    "ClassifyRequest.mirrored": False,
    "CanaryVerdict.reason": "no worse on any indicator",
    "CanaryVerdict.verdict": "promote",
    "DriftWindow.rows": 200,
    "DriftWindow.verdict": "quiet",
    "GateCheck.name": "regression",
    "CreateKeyRequest.name": "checkout service",
    "CreateKeyRequest.role": "client",
    "Key.id": "1f0c9a2e",
    "Key.name": "checkout service",
    "Key.role": "client",
    "GetVersionRequest.version": "@champion",
    "Model.aliases": {"champion": 3},
    "Rollout.state": "promoted",
    "Run.status": "succeeded",
    "GetLineageRequest.version": "3",
    "LineageEdge.target": "version/topics/3",
    "LineageNode.id": "version/topics/3",
    "LineageNode.kind": "version",
    "LineageNode.label": "topics 3",
    "ListHistoryRequest.kind": "rollout_promoted",
    "ListRunsRequest.status": "succeeded",
    "ListVerdictsRequest.verdict": "promote",
    "ListVersionsRequest.status": "passed",
    "ListWindowsRequest.verdict": "quiet",
    "RunLogLine.number": 17,
    "SliceScore.name": "all",
    "StartRolloutRequest.version": "3",
    "Variant.reason": "",
    "Version.status": "passed",
}

BODIES: Final[dict[str, dict[str, Any]]] = {
    "SetAlias": {"version": 3, "reason": "to be tried on the side"},
    "StartRollout": {"version": "3", "policy": {"weights": [10, 50], "bake_seconds": 60.0}},
    "PauseRollout": {"reason": "waiting for the labels of today"},
    "ResumeRollout": {"reason": "the labels are in"},
    "PromoteRollout": {"reason": "seen enough"},
    "RollBack": {"reason": "complaints about the new version"},
    "StopDeployment": {"reason": "nobody asks it any more"},
    "CancelRun": {"reason": "wrong data set"},
    "AnnounceDataset": {
        "dataset": "docstrings-2026-11",
        "uri": "file:///var/lib/millrace/datasets/docstrings.jsonl",
        "model": "topics",
        "recipe_json": RECIPE,
    },
    "Classify": {"texts": SAMPLES["texts"], "sticky_key": "user-17"},
    "Embed": {"texts": SAMPLES["texts"], "whole_texts": True},
    "CreateBatch": {
        "deployment": "topics",
        "uri": "file:///var/lib/millrace/datasets/reviews-2026-11.jsonl",
        "text_column": "text",
    },
    "CancelBatch": {"reason": "the wrong file"},
    "CreateKey": {"role": "client", "name": "checkout service", "limits": {"requests_per_second": 20.0, "burst": 40}},
    "RevokeKey": {},
    "SendFeedback": {"request_id": "req-01k9rmb3x5c7v9b1n2m4a6s8d0", "label": "files"},
}
"""The bodies that a client would send, where a body of every field would not be one."""


def sample(message: Descriptor) -> Any:
    """The message as JSON, every field set."""
    return {spec.name: field_sample(spec) for spec in message.fields}


def field_sample(spec: FieldDescriptor) -> Any:
    inner = spec.message_type
    if inner is None or inner.full_name == TIMESTAMP or inner.GetOptions().map_entry:
        return sample_of(spec)
    return [sample(inner)] if spec.is_repeated else sample(inner)


def sample_of(spec: FieldDescriptor) -> Any:
    """What the table says of a field that is no message; None where it says nothing."""
    inside = spec.containing_type.name if spec.containing_type is not None else ""
    return SAMPLES.get(f"{inside}.{spec.name}", SAMPLES.get(spec.name))
