"""Tasks: one check, forms that lead to one another, what is logged, judged and compared."""

import base64
import struct
from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.errors import BadField, Malformed, MillraceError
from services.contracts.rpc import inference_pb2 as pb
from services.contracts.rpc.replica_pb2 import StreamRequestFrame, StreamResponseFrame
from services.contracts.tasks import CLASSIFICATION, EMBEDDING, TASKS
from services.contracts.tasks.classification import (
    MAX_SCORES,
    ClassificationRequest,
    ClassificationResult,
    Prediction,
    ranked,
)
from services.contracts.tasks.embedding import EmbeddingRequest, EmbeddingResult
from services.contracts.tasks.errors import ContextLengthExceeded, TextTooLong, UnknownTask
from services.contracts.tasks.feedback import Feedback, item_key, item_keys, requests_of
from services.contracts.tasks.records import representative
from services.contracts.tasks.task import AnswerInfo, RequestLimits
from services.contracts.tasks.texts import MAX_TEXTS

EDGE, MODEL = RequestLimits(), RequestLimits(characters=2_048, tokens=64)
INFO = AnswerInfo("r", "news", "news", 3, tokens=7)


def refusal_of(texts: list[str], limits: RequestLimits = EDGE, *, truncate: bool = True) -> MillraceError:
    with pytest.raises(MillraceError) as refused:
        CLASSIFICATION.check(ClassificationRequest(texts, truncate=truncate), limits)
    with pytest.raises(type(refused.value)):
        EMBEDDING.check(EmbeddingRequest(texts, truncate=truncate), limits)
    return refused.value


@pytest.mark.parametrize(
    ("texts", "kind", "field"),
    [
        ([], BadField, "texts"),
        (["a"] * (MAX_TEXTS + 1), BadField, "texts"),
        (["fine", ""], BadField, "texts[1]"),
        (["\u2003"], BadField, "texts[0]"),
        (["a\0b"], Malformed, "texts[0]"),
        (["x" * 10_001], BadField, "texts[0]"),
    ],
)
def test_what_no_model_takes_is_refused_by_its_index(texts: list[str], kind: type[MillraceError], field: str) -> None:
    error = refusal_of(texts)
    assert (type(error), error.field) == (kind, field)


def test_a_text_that_is_far_longer_than_the_model_reads_is_refused_with_a_way_out() -> None:
    body = refusal_of(["fine", "x" * 2_049], MODEL).body()
    assert (body.code, body.field) == ("text_too_long", "texts[1]")
    assert "2049 characters" in body.message
    assert "first 64 tokens" in (body.hint or "")
    complete = refusal_of(["x" * 2_049], MODEL, truncate=False)
    assert isinstance(complete, ContextLengthExceeded)
    assert "maximum context length is 64 tokens" in str(complete)
    assert "is 10000 characters" in str(refusal_of(["x" * 10_001], truncate=False))
    assert not isinstance(complete, TextTooLong)
    CLASSIFICATION.check(ClassificationRequest(["x" * 2_048]), MODEL)


TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=5)


@given(TEXTS, st.booleans(), st.booleans())
def test_a_request_is_the_same_as_json_and_as_payload(texts: list[str], with_embeddings: bool, complete: bool) -> None:
    sent = {"texts": texts, "with_embeddings": with_embeddings, "whole_texts": complete}
    request = CLASSIFICATION.read(sent)
    back = CLASSIFICATION.decode(CLASSIFICATION.encode(request))
    assert (list(back.texts), back.with_embeddings, back.truncate) == (texts, with_embeddings, not complete)
    embedding = EMBEDDING.decode(EMBEDDING.encode(EMBEDDING.read(sent)))
    assert (list(embedding.texts), embedding.truncate) == (texts, not complete)


@pytest.mark.parametrize("sent", [{}, {"texts": "a"}, {"texts": [1]}, {"texts": ["a"], "whole_texts": "yes"}])
def test_json_of_another_type_names_its_field(sent: dict[str, Any]) -> None:
    for task in TASKS:
        with pytest.raises(BadField):
            task.read(sent)


def test_bytes_that_are_no_message_are_malformed() -> None:
    for task in TASKS:
        for decode in (task.decode, task.decode_result):
            with pytest.raises(Malformed):
                decode(b"\xff\xff")


def test_a_result_is_the_answer_that_a_client_of_grpc_gets() -> None:
    result = ClassificationResult([ranked(["a", "b"], [0.25, 0.75])], [array("f", [0.5, 1.0])])
    payload = CLASSIFICATION.encode_result(result, INFO)
    message = pb.ClassifyResponse.FromString(payload)
    assert (message.request_id, message.version, message.tokens, message.predictions[0].label) == ("r", 3, 7, "b")
    assert CLASSIFICATION.decode_result(payload) == result
    vectors = EmbeddingResult([array("f", [0.5, 1.0])])
    assert EMBEDDING.decode_result(EMBEDDING.encode_result(vectors, INFO)) == vectors
    packed = base64.b64encode(struct.pack("<2f", 0.5, 1.0)).decode()
    assert EMBEDDING.lines(vectors) == [{"embedding": packed}]
    assert CLASSIFICATION.lines(result)[0]["embedding"] == packed


def test_of_very_many_labels_the_likeliest_are_shown() -> None:
    scores = [float(number) for number in range(MAX_SCORES + 50)]
    shown = ranked([f"l{number}" for number in range(len(scores))], scores)
    assert (shown.label, len(shown.scores), shown.scores[-1].label) == (f"l{MAX_SCORES + 49}", MAX_SCORES, "l50")


def test_a_closed_frame_has_the_bytes_of_the_open_message() -> None:
    classify = pb.ClassifyRequest(deployment="news", texts=["a"])
    request = pb.StreamRequest(id=7, classify=classify, traceparent="t", deadline_ms=5)
    frame = StreamRequestFrame.FromString(request.SerializeToString())
    assert (frame.id, frame.classify, frame.HasField("embed")) == (7, classify.SerializeToString(), False)
    answer = pb.ClassifyResponse(request_id="r")
    shown = StreamResponseFrame(id=7, response=answer.SerializeToString()).SerializeToString()
    assert pb.StreamResponse.FromString(shown) == pb.StreamResponse(id=7, response=answer)


def test_labels_references_and_grades_judge_a_classification_and_grades_alone_an_embedding() -> None:
    judged = [
        Feedback(label="a"),
        Feedback(reference="b"),
        Feedback(rating=1),
        Feedback(rating=5),
        Feedback(score=0.25),
    ]
    assert [CLASSIFICATION.judge("a", one) for one in judged] == [1.0, 0.0, 0.0, 1.0, 0.25]
    assert [EMBEDDING.judge("vector", one) for one in judged] == [None, None, 0.0, 1.0, 0.25]
    assert CLASSIFICATION.judge(None, Feedback(label="a")) is None


def test_answers_are_compared_as_their_task_means() -> None:
    def half(*values: float) -> str:
        return base64.b64encode(struct.pack(f"<{len(values)}e", *values)).decode()

    assert [CLASSIFICATION.compare("a", other) for other in ("a", "b", None)] == [1.0, 0.0, None]
    others = (half(2, 0), half(0, 1), half(-1, 0), half(1, 0, 0), half(0, 0), "***", "", None)
    assert [EMBEDDING.compare(half(1, 0), other) for other in others] == [1.0, 0.0, 0.0, None, None, None, None, None]


def test_the_first_item_goes_by_the_requests_own_name_and_by_its_number() -> None:
    assert item_keys("r", 3) == ["r", "r:1", "r:2"]
    assert item_key("r:0") == item_key("r") == "r"
    assert item_key("r:1") == item_key("r", 1) == "r:1"


@given(st.sampled_from(["r", "a:1", "a:0", "x:7:2", ":0"]), st.integers(0, 63))
def test_every_item_is_found_under_its_key(request: str, item: int) -> None:
    assert (request, item) in requests_of(item_key(request, item))


def test_items_stand_for_their_requests_evenly() -> None:
    drawn = [representative(f"r-{number}", 4) for number in range(4_000)]
    assert all(900 < drawn.count(item) < 1_100 for item in range(4))


def test_a_task_that_is_not_known_is_refused_with_those_that_are() -> None:
    with pytest.raises(UnknownTask) as refused:
        TASKS.named("painting")
    assert "classification, embedding" in (refused.value.hint or "")
    assert TASKS.find("painting") is None
    assert TASKS.by_verb("embed") is EMBEDDING


def test_a_failed_request_is_logged_by_its_inputs_alone() -> None:
    request = ClassificationRequest(["a", "b"])
    assert CLASSIFICATION.items(request, None, with_inputs=True) == [{"text": "a"}, {"text": "b"}]
    result = ClassificationResult([Prediction("x", 1.0, ())] * 2)
    assert CLASSIFICATION.items(request, result, with_inputs=False) == [{"label": "x", "score": 1.0}] * 2
