"""The bounds of a request, and what is kept of an answered one."""

import base64
from datetime import UTC, datetime

import pytest

from services.contracts.errors import Refusal
from services.inference.domain.records import (
    Answered,
    LogBuffer,
    Sampling,
    is_sampled,
    record_id,
    to_events,
    to_record,
)
from services.inference.domain.requests import Reading, check_count, check_request_id, check_texts
from services.inference.errors import (
    BadRequestId,
    ContextLengthExceeded,
    EmptyText,
    NoTexts,
    TextTooLong,
    TooManyTexts,
)

READING = Reading(max_length=64, characters_per_token=32)


def answered(number: int, *, deployment: str = "topics", text: str = "a text", tenant: str = "default") -> Answered:
    return Answered(
        deployment=deployment,
        model="m",
        version=1,
        request=f"r-{number}",
        mirrored=False,
        at=datetime(2026, 1, 1, tzinfo=UTC),
        latency_ms=1.23456,
        text=text,
        tokens=3,
        label="files",
        score=0.5,
        embedding=b"\x00\x3c\x00\xbc",
        tenant=tenant,
    )


def test_an_over_long_text_is_refused_with_its_place_the_limit_and_a_way_out() -> None:
    with pytest.raises(TextTooLong) as caught:
        check_texts(["fine", "x" * 2049], READING)
    body = caught.value.body()
    assert (body.code, body.field) == ("text_too_long", "texts[1]")
    assert "2049 characters" in body.message
    assert "2048" in body.message
    assert "first 64 tokens" in (body.hint or "")


def test_a_whole_text_that_is_too_long_by_far_is_told_the_limit_in_tokens() -> None:
    with pytest.raises(ContextLengthExceeded) as caught:
        check_texts(["fine", "x" * 2049], READING, whole=True)
    body = caught.value.body()
    assert (body.code, body.field) == ("context_length_exceeded", "texts[1]")
    assert "maximum context length is 64 tokens" in body.message


def test_a_text_of_exactly_the_limit_is_taken() -> None:
    check_texts(["x" * 2048], READING)


@pytest.mark.parametrize("text", ["", " ", "\n\t  ", "\u2003"])
def test_a_blank_text_is_refused(text: str) -> None:
    with pytest.raises(EmptyText):
        check_texts(["fine", text], READING)


@pytest.mark.parametrize(("texts", "refusal"), [([], NoTexts), (["a"] * 65, TooManyTexts)])
def test_a_request_without_texts_or_with_too_many_is_refused(texts: list[str], refusal: type[Refusal]) -> None:
    with pytest.raises(refusal):
        check_count(texts, 64)


@pytest.mark.parametrize("request_id", ["", "a b", "../x", "é", "x" * 121, "a\n", "-a"])
def test_a_request_id_that_feedback_could_not_name_is_refused(request_id: str) -> None:
    with pytest.raises(BadRequestId):
        check_request_id(request_id)


def test_feedback_finds_one_text_by_the_requests_id_and_several_by_their_index() -> None:
    assert (record_id("r", 0, 1), record_id("r", 2, 3)) == ("r", "r:2")


def test_sampling_keeps_the_stated_share_and_always_the_same_requests() -> None:
    ids = [f"request-{number}" for number in range(4000)]
    kept = [name for name in ids if is_sampled(name, 0.25)]
    assert 0.22 < len(kept) / len(ids) < 0.28
    assert kept == [name for name in ids if is_sampled(name, 0.25)]
    assert not any(is_sampled(name, 0.0) for name in ids)
    assert all(is_sampled(name, 1.0) for name in ids)


def test_a_record_carries_text_and_embedding_only_where_sampling_keeps_them() -> None:
    full = to_record(answered(1), Sampling(text=1, embedding=1))
    assert full.embedding is not None
    assert base64.b64decode(full.embedding) == b"\x00\x3c\x00\xbc"
    bare = to_record(answered(1), Sampling(text=0, embedding=0))
    assert (bare.text, bare.embedding, bare.label) == (None, None, "files")


def test_a_full_log_gives_up_the_oldest_answers_and_counts_them() -> None:
    buffer = LogBuffer(capacity=3)
    for number in range(5):
        buffer.add(answered(number))
    assert buffer.dropped == {"default": 2}
    assert [item.request for item in buffer.take(10)] == ["r-2", "r-3", "r-4"]


def test_answers_that_could_not_be_sent_keep_their_place_in_front() -> None:
    buffer = LogBuffer(capacity=4)
    for number in range(3):
        buffer.add(answered(number))
    taken = buffer.take(2)
    buffer.add(answered(3))
    buffer.put_back(taken)
    assert [item.request for item in buffer.take(10)] == ["r-0", "r-1", "r-2", "r-3"]


def test_an_event_of_the_longest_texts_fits_into_a_message() -> None:
    buffer = LogBuffer(capacity=1000)
    for number in range(300):
        buffer.add(answered(number, text="\U0001f600" * 10_000))
    events = to_events(buffer.take(300), replica="r", sampling=Sampling(text=1, embedding=1))
    assert len(events[0][1].model_dump_json().encode()) < 900_000
    assert len(buffer) > 0


def test_each_deployment_gets_an_event_of_its_own() -> None:
    mixed = [answered(1), answered(2, deployment="other"), answered(3)]
    events = to_events(mixed, replica="r", sampling=Sampling(text=1, embedding=1))
    assert {event.deployment: [record.request for record in event.records] for _, event in events} == {
        "topics": ["r-1", "r-3"],
        "other": ["r-2"],
    }


def test_tenants_of_one_name_get_events_of_their_own() -> None:
    mixed = [answered(1), answered(2, tenant="acme")]
    events = to_events(mixed, replica="r", sampling=Sampling(text=1, embedding=1))
    assert [(tenant, event.deployment, len(event.records)) for tenant, event in events] == [
        ("default", "topics", 1),
        ("acme", "topics", 1),
    ]
