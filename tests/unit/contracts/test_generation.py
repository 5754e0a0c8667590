"""A request to generate: read, checked, carried; and how its answers are judged."""

from dataclasses import replace
from typing import Any

import pytest

from services.contracts.errors import BadField, MillraceError
from services.contracts.tasks import GENERATION
from services.contracts.tasks.feedback import Feedback
from services.contracts.tasks.generation import (
    Choice,
    GenerationChunk,
    GenerationRequest,
    GenerationResult,
    Message,
    SamplingOptions,
    Timing,
    TokenLogprob,
)
from services.contracts.tasks.overlap import rouge_l
from services.contracts.tasks.task import AnswerInfo, RequestLimits

INFO = AnswerInfo("r-1", "chat", "writer", 3, 12)
LIMITS = RequestLimits()
MESSAGES = [{"role": "system", "content": "Be short."}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
REQUEST = GenerationRequest(
    inputs=["Once", (Message("user", "Hi", "ann"),)],
    max_tokens=9,
    choices=2,
    stop=["\n"],
    sampling=SamplingOptions(0.0, 0.5, 7, 0.1, 0.2, 0.3, 1.1, {5: -2.0}, 2**64 - 1),
    top_logprobs=0,
)
RESULT = GenerationResult(
    choices=[Choice(0, "a b", "stop", [TokenLogprob(b"\xe2\x82", -0.5, [TokenLogprob(b"x", -1.0, [])])])],
    prompt_tokens=8,
    completion_tokens=4,
    cached_tokens=2,
)


def test_a_request_comes_out_as_it_went_in() -> None:
    assert GENERATION.decode(GENERATION.encode(REQUEST)) == REQUEST
    plain = GenerationRequest(inputs=["x"])
    assert GENERATION.decode(GENERATION.encode(plain)) == replace(plain, stop=[])


def test_a_result_and_a_part_of_it_come_out_as_they_went_in() -> None:
    assert GENERATION.decode_result(GENERATION.encode_result(RESULT, INFO)) == RESULT
    for chunk in (GenerationChunk(1, "é", None, RESULT.choices[0].logprobs), GenerationChunk(0, "", "length", [])):
        assert GENERATION.decode_chunk(GENERATION.encode_chunk(chunk)) == chunk


def test_json_is_read() -> None:
    sent = {"messages": MESSAGES, "max_tokens": 5, "temperature": 0, "stop": "END", "seed": 1, "logit_bias": {"5": -1}}
    request = GENERATION.read(sent)
    assert request.inputs == [(Message("system", "Be short."), Message("user", "Hi"))]
    assert (request.max_tokens, request.stop, request.sampling.temperature) == (5, ["END"], 0.0)
    assert (request.sampling.seed, request.sampling.logit_bias) == (1, {5: -1.0})
    assert GENERATION.read({"prompt": ["a", "b"], "n": 2}).inputs == ["a", "b"]


def test_the_rows_of_a_batch_are_what_a_user_says_after_common_messages() -> None:
    request = GENERATION.from_texts(["a", "b"], {"messages": MESSAGES[:1], "max_tokens": 3})
    system = Message("system", "Be short.")
    assert request.inputs == [(system, Message("user", "a")), (system, Message("user", "b"))]
    with pytest.raises(BadField, match="one answer"):
        GENERATION.from_texts(["a"], {"n": 2})


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({}, "messages"),
        ({"prompt": "a", "messages": MESSAGES}, "messages"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": "", "tool_calls": [1]}]}, "messages[0].tool_calls"),
        ({"prompt": "a", "temperature": "hot"}, "temperature"),
        ({"prompt": "a", "temperature": True}, "temperature"),
        ({"prompt": "a", "max_tokens": 1.5}, "max_tokens"),
        ({"prompt": "a", "seed": -1}, "seed"),
        ({"prompt": "a", "stop": [1]}, "stop"),
        ({"prompt": "a", "logit_bias": {"x": 1}}, "logit_bias"),
        ({"prompt": "a", "logit_bias": [1]}, "logit_bias"),
    ],
)
def test_json_of_another_shape_is_refused_by_the_field(sent: dict[str, Any], field: str) -> None:
    with pytest.raises(BadField) as refused:
        GENERATION.read(sent)
    assert refused.value.field == field


def sampled(**options: Any) -> GenerationRequest:
    return GenerationRequest(inputs=["a"], sampling=SamplingOptions(**options))


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (GenerationRequest(inputs=[]), "inputs"),
        (GenerationRequest(inputs=["a"] * 65), "inputs"),
        (GenerationRequest(inputs=[""]), "inputs[0]"),
        (GenerationRequest(inputs=["a\x00"]), "inputs[0]"),
        (GenerationRequest(inputs=["a" * 1_000_001]), "inputs[0]"),
        (GenerationRequest(inputs=[(Message("robot", "a"),)]), "inputs[0].messages[0].role"),
        (GenerationRequest(inputs=[(Message("system", "a"),)]), "inputs[0]"),
        (GenerationRequest(inputs=["a"], choices=0), "choices"),
        (GenerationRequest(inputs=["a"] * 33, choices=2), "choices"),
        (GenerationRequest(inputs=["a"], stop=[""]), "stop[0]"),
        (GenerationRequest(inputs=["a"], stop=["a"] * 17), "stop"),
        (GenerationRequest(inputs=["a"], top_logprobs=21), "top_logprobs"),
        (GenerationRequest(inputs=["a"], max_tokens=-1), "max_tokens"),
        (sampled(temperature=2.5), "temperature"),
        (sampled(temperature=float("nan")), "temperature"),
        (sampled(top_p=0.0), "top_p"),
        (sampled(min_p=1.5), "min_p"),
        (sampled(frequency_penalty=-3.0), "frequency_penalty"),
        (sampled(repetition_penalty=0.0), "repetition_penalty"),
        (sampled(logit_bias={5: 101.0}), "logit_bias"),
        (sampled(logit_bias={5: float("nan")}), "logit_bias"),
        (sampled(seed=2**64), "seed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_no_model_takes_is_refused_by_the_field(request_: GenerationRequest, field: str) -> None:
    with pytest.raises(MillraceError) as refused:
        GENERATION.check(request_, LIMITS)
    assert refused.value.field == field


def test_what_a_model_takes_passes() -> None:
    GENERATION.check(REQUEST, LIMITS)
    GENERATION.check(sampled(temperature=2.0, top_p=1e-6, min_p=1.0, logit_bias={0: -100.0}), LIMITS)


def test_a_prompt_that_the_context_cannot_hold_is_refused_where_the_model_is_known() -> None:
    long = GenerationRequest(inputs=["a" * 500])
    GENERATION.check(long, LIMITS)
    with pytest.raises(MillraceError, match="context length is 16 tokens"):
        GENERATION.check(long, RequestLimits(characters=400, tokens=16))


def test_the_log_has_prompt_answer_and_numbers_and_no_words_without_inputs() -> None:
    request = GenerationRequest(inputs=[(Message("user", "Hi"),)], choices=1)
    result = replace(RESULT, timing=Timing(1.0, 2.0, 3.0))
    (item,) = GENERATION.items(request, result, with_inputs=True)
    assert (item["text"], item["answer"], item["finish_reason"]) == ("user: Hi", "a b", "stop")
    assert (item["completion_tokens"], item["first_token_ms"]) == (4, 2.0)
    (silent,) = GENERATION.items(request, result, with_inputs=False)
    assert not {"text", "answer"} & silent.keys()
    assert silent["prompt_tokens"] == 8
    assert GENERATION.items(request, None, with_inputs=True) == [{"text": "user: Hi"}]


def test_the_first_answer_to_each_input_is_the_one_that_is_logged() -> None:
    result = replace(RESULT, choices=[Choice(number, f"answer {number}", "stop") for number in range(4)])
    request = GenerationRequest(inputs=["a", "b"], choices=2)
    items = GENERATION.items(request, result, with_inputs=True)
    assert [item["answer"] for item in items] == ["answer 0", "answer 2"]


def test_an_answer_is_judged_by_a_grade_or_by_what_it_shares_with_the_reference() -> None:
    assert GENERATION.judge("a b", Feedback(rating=5)) == 1.0
    assert GENERATION.judge("a b", Feedback(reference="A b.")) == 1.0
    assert GENERATION.judge("a b", Feedback(reference="c d")) == 0.0
    assert GENERATION.judge(None, Feedback(reference="c d")) is None
    assert GENERATION.compare("a b c", "a c") == pytest.approx(0.8)
    assert GENERATION.compare(None, "a") is None


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("police kill the gunman", "police killed the gunman", 0.75),  # the example of Lin (2004)
        ("the gunman kill police", "police killed the gunman", 0.5),
        ("", "", 1.0),
        ("", "a", 0.0),
        ("Same, words!", "same words", 1.0),
    ],
)
def test_rouge_l_is_the_f1_of_the_longest_common_subsequence(answer: str, reference: str, score: float) -> None:
    assert rouge_l(answer, reference) == pytest.approx(score)
