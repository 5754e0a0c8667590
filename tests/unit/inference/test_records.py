"""What is kept of an answered request."""

import base64
from datetime import UTC, datetime

from services.contracts.artifact import Precision
from services.contracts.tasks import CLASSIFICATION
from services.contracts.tasks.classification import ClassificationRequest, ClassificationResult, ranked
from services.contracts.tasks.records import InferenceRecord, Source
from services.inference.domain.records import LogBuffer, LoggedRequest, Sampling, is_sampled, record_of, to_events
from services.inference.domain.scoring import Done


def logged(number: int, *, deployment: str = "topics", text: str = "a text", tenant: str = "default") -> LoggedRequest:
    return LoggedRequest(deployment, "m", "classification", record(number, text), tenant=tenant)


def record(number: int, text: str = "a text", sampling: Sampling | None = None) -> InferenceRecord:
    request = ClassificationRequest([text])
    result = ClassificationResult([ranked(["files"], [0.5])])
    return record_of(
        CLASSIFICATION,
        request,
        Done(result, tokens=3, embeddings=[b"\x00\x3c\x00\xbc"]),
        request_id=f"r-{number}",
        version=1,
        variant=Precision.FP16,
        source=Source.LIVE,
        at=datetime(2026, 1, 1, tzinfo=UTC),
        latency_ms=1.23456,
        sampling=sampling or Sampling(),
    )


def test_sampling_keeps_the_stated_share_and_always_the_same_requests() -> None:
    ids = [f"request-{number}" for number in range(4000)]
    stored = [name for name in ids if is_sampled(name, 0.25)]
    assert 0.22 < len(stored) / len(ids) < 0.28
    assert stored == [name for name in ids if is_sampled(name, 0.25)]
    assert not any(is_sampled(name, 0.0) for name in ids)
    assert all(is_sampled(name, 1.0) for name in ids)


def test_a_record_carries_text_and_embedding_only_where_sampling_keeps_them() -> None:
    full = record(1)
    assert full.embedding is not None
    assert base64.b64decode(full.embedding) == b"\x00\x3c\x00\xbc"
    bare = record(1, sampling=Sampling(text=0, embedding=0))
    assert (bare.items, bare.embedding) == ([{"label": "files", "score": 0.5}], None)


def test_a_full_log_gives_up_the_oldest_answers_and_counts_them() -> None:
    buffer = LogBuffer(capacity=3)
    for number in range(5):
        buffer.add(logged(number))
    assert buffer.dropped == {"default": 2}
    assert [item.record.request for item in buffer.take(10)] == ["r-2", "r-3", "r-4"]


def test_answers_that_could_not_be_sent_stay_in_front() -> None:
    buffer = LogBuffer(capacity=4)
    for number in range(3):
        buffer.add(logged(number))
    taken = buffer.take(2)
    buffer.add(logged(3))
    buffer.put_back(taken)
    assert [item.record.request for item in buffer.take(10)] == ["r-0", "r-1", "r-2", "r-3"]


def test_an_event_of_the_longest_texts_fits_into_a_message() -> None:
    buffer = LogBuffer(capacity=1000)
    for number in range(300):
        buffer.add(logged(number, text="\U0001f600" * 10_000))
    events = to_events(buffer.take(300), replica="r")
    assert len(events[0][1].model_dump_json().encode()) < 900_000
    assert len(buffer) > 0


def test_each_deployment_gets_an_event_of_its_own() -> None:
    mixed = [logged(1), logged(2, deployment="other"), logged(3)]
    events = to_events(mixed, replica="r")
    assert {event.deployment: [record.request for record in event.records] for _, event in events} == {
        "topics": ["r-1", "r-3"],
        "other": ["r-2"],
    }


def test_tenants_of_one_name_get_events_of_their_own() -> None:
    mixed = [logged(1), logged(2, tenant="acme")]
    events = to_events(mixed, replica="r")
    assert [(tenant, event.deployment, len(event.records)) for tenant, event in events] == [
        ("default", "topics", 1),
        ("acme", "topics", 1),
    ]


def test_a_request_of_many_long_texts_is_one_record_that_fits_into_an_event() -> None:
    texts = ["\U0001f600" * 10_000] * 64
    items = CLASSIFICATION.items(ClassificationRequest(texts), None, with_inputs=True)
    assert len(items) == 64
    assert sum(len(item["text"].encode()) for item in items) < 600_000
