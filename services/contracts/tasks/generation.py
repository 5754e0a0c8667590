"""Generation: a text is continued, or a conversation answered, token by token."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Final, Literal, TypeAlias, get_args

from services.contracts.rpc import generation_pb2 as pb
from services.contracts.tasks import generation_json as from_json
from services.contracts.tasks.feedback import Feedback
from services.contracts.tasks.generation_request import (
    Conversation,
    GenerationRequest,
    Message,
    Prompt,
    SamplingOptions,
    check_request,
)
from services.contracts.tasks.overlap import rouge_l
from services.contracts.tasks.protobuf import parse
from services.contracts.tasks.records import Answer, InferenceRecord, Item
from services.contracts.tasks.task import AnswerInfo, Metric, RequestLimits, StreamingTask
from services.contracts.tasks.texts import LOGGED_TEXT, LOGGED_TEXTS

FinishReason: TypeAlias = Literal["stop", "length"]
FINISH_REASONS: Final[tuple[FinishReason, ...]] = get_args(FinishReason)


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token's bytes (a character may be spread over several), its log probability, and the likeliest ones there."""

    token: bytes
    logprob: float
    top: Sequence["TokenLogprob"] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer: `index` counts those of the first input, then those of the second, and so on."""

    index: int
    text: str
    finish_reason: FinishReason
    logprobs: Sequence[TokenLogprob] = ()


@dataclass(frozen=True, slots=True)
class GenerationChunk:
    """A part of one answer; the last part of each says why it ended."""

    index: int
    text: str
    finish_reason: FinishReason | None = None
    logprobs: Sequence[TokenLogprob] = ()


@dataclass(frozen=True, slots=True)
class Timing:
    """Of one request at the replica, in milliseconds. It is logged, and no part of the answer."""

    queued_ms: float
    first_token_ms: float
    """From the request's arrival."""
    between_tokens_ms: float
    """The mean; 0 where there was one token."""


@dataclass(frozen=True, slots=True)
class GenerationResult:
    choices: Sequence[Choice]
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    """Of the prompt's tokens, those that were computed for an earlier request."""
    timing: Timing | None = None


class Generation(StreamingTask[GenerationRequest, GenerationResult, GenerationChunk]):
    name: ClassVar[str] = "generation"
    verb: ClassVar[str] = "generate"
    fields: ClassVar[frozenset[str]] = from_json.FIELDS
    metric: ClassVar[Metric] = Metric("quality", "mean of ratings, of scores, and of ROUGE-L against reference answers")

    # --- the request

    def read(self, sent: Mapping[str, Any]) -> GenerationRequest:
        return from_json.read(sent)

    def from_texts(self, texts: Sequence[str], options: Mapping[str, Any]) -> GenerationRequest:
        """Each text is what a user says, after the `messages` of the options, if there are any."""
        return from_json.read_rows(texts, options)

    def decode(self, payload: bytes) -> GenerationRequest:
        return self.from_message(parse(pb.GenerateRequest, payload))

    def from_message(self, message: pb.GenerateRequest) -> GenerationRequest:
        """For whoever reads more of the message than the task does."""
        return GenerationRequest(
            inputs=[_input(one) for one in message.inputs],
            max_tokens=message.max_tokens,
            choices=message.choices or 1,
            stop=list(message.stop),
            sampling=_sampling(message.sampling),
            top_logprobs=message.top_logprobs if message.HasField("top_logprobs") else None,
        )

    def encode(self, request: GenerationRequest) -> bytes:
        message = pb.GenerateRequest(
            inputs=[_input_message(one) for one in request.inputs],
            max_tokens=request.max_tokens,
            choices=request.choices,
            stop=request.stop,
            sampling=_sampling_message(request.sampling),
            top_logprobs=request.top_logprobs,
        )
        return message.SerializeToString()

    def check(self, request: GenerationRequest, limits: RequestLimits) -> None:
        check_request(request, limits)

    def size(self, request: GenerationRequest) -> int:
        return len(request.inputs)

    # --- the result

    def encode_result(self, result: GenerationResult, info: AnswerInfo) -> bytes:
        """As clients of gRPC have it, so that the gateway need not open it for them."""
        message = pb.GenerateResponse(
            request_id=info.request_id,
            deployment=info.deployment,
            model=info.model,
            version=info.version,
            tokens=info.tokens,
            choices=[
                pb.GeneratedChoice(
                    index=choice.index,
                    text=choice.text,
                    finish_reason=choice.finish_reason,
                    logprobs=[_logprob_message(one) for one in choice.logprobs],
                )
                for choice in result.choices
            ],
            prompt_tokens=result.prompt_tokens,
            completion_tokens=result.completion_tokens,
            cached_tokens=result.cached_tokens,
        )
        return message.SerializeToString()

    def decode_result(self, payload: bytes) -> GenerationResult:
        message = parse(pb.GenerateResponse, payload)
        return GenerationResult(
            choices=[
                Choice(one.index, one.text, _reason(one.finish_reason), [_logprob(part) for part in one.logprobs])
                for one in message.choices
            ],
            prompt_tokens=message.prompt_tokens,
            completion_tokens=message.completion_tokens,
            cached_tokens=message.cached_tokens,
        )

    def show(self, result: GenerationResult) -> dict[str, Any]:
        return {
            "choices": [_shown(choice) for choice in result.choices],
            "prompt_tokens": result.prompt_tokens,
            "completion_tokens": result.completion_tokens,
            "cached_tokens": result.cached_tokens,
        }

    def lines(self, result: GenerationResult) -> list[dict[str, Any]]:
        """A batch asks for one answer to each row."""
        return [{"text": one.text, "finish_reason": one.finish_reason} for one in result.choices]

    def encode_chunk(self, chunk: GenerationChunk) -> bytes:
        message = pb.GenerateChunk(
            index=chunk.index,
            text=chunk.text,
            finish_reason=chunk.finish_reason or "",
            logprobs=[_logprob_message(one) for one in chunk.logprobs],
        )
        return message.SerializeToString()

    def decode_chunk(self, payload: bytes) -> GenerationChunk:
        message = parse(pb.GenerateChunk, payload)
        reason = _reason(message.finish_reason) if message.finish_reason else None
        return GenerationChunk(message.index, message.text, reason, [_logprob(one) for one in message.logprobs])

    def show_chunk(self, chunk: GenerationChunk) -> dict[str, Any]:
        shown: dict[str, Any] = {"index": chunk.index, "text": chunk.text, "finish_reason": chunk.finish_reason}
        return shown | ({"logprobs": [_shown_logprob(one) for one in chunk.logprobs]} if chunk.logprobs else {})

    # --- what is logged, and how it is judged

    def items(self, request: GenerationRequest, result: GenerationResult | None, *, with_inputs: bool) -> list[Item]:
        """An item an input, with the first answer to it. Neither's words are kept without `with_inputs`."""
        items: list[Item] = [{} for _ in request.inputs]
        limit = min(LOGGED_TEXT, LOGGED_TEXTS // (2 * max(1, len(items))))
        for number, (item, one) in enumerate(zip(items, request.inputs, strict=True)):
            if with_inputs:
                item["text"] = _as_text(one)[-limit:]
            if result is not None:
                choice = result.choices[number * request.choices]
                item["finish_reason"] = choice.finish_reason
                if with_inputs:
                    item["answer"] = choice.text[:limit]
        if result is not None:
            items[0] |= _usage(result)
        return items

    def answers(self, record: InferenceRecord) -> list[Answer]:
        return [item.get("answer") for item in record.items]

    def judge(self, answer: Answer, feedback: Feedback) -> float | None:
        """A rating or a score as it is; ROUGE-L where a reference answer was given."""
        truth = feedback.reference if feedback.reference is not None else feedback.label
        if truth is None:
            return feedback.grade
        return None if answer is None else rouge_l(str(answer), truth)

    def compare(self, left: Answer, right: Answer) -> float | None:
        return None if left is None or right is None else rouge_l(str(left), str(right))


GENERATION: Final = Generation()


def _as_text(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{message.role}: {message.content}" for message in prompt)


def _usage(result: GenerationResult) -> dict[str, Any]:
    """Of the whole request; it stands in its first item."""
    usage = {
        "prompt_tokens": result.prompt_tokens,
        "completion_tokens": result.completion_tokens,
        "cached_tokens": result.cached_tokens,
    }
    return usage | (asdict(result.timing) if result.timing is not None else {})


def _shown(choice: Choice) -> dict[str, Any]:
    shown: dict[str, Any] = {"index": choice.index, "text": choice.text, "finish_reason": choice.finish_reason}
    if choice.logprobs:
        shown["logprobs"] = [_shown_logprob(one) for one in choice.logprobs]
    return shown


def _shown_logprob(one: TokenLogprob) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "token": one.token.decode("utf-8", "replace"),
        "bytes": list(one.token),
        "logprob": one.logprob,
    }
    return shown | ({"top": [_shown_logprob(other) for other in one.top]} if one.top else {})


def _reason(value: str) -> FinishReason:
    """A reason that a newer replica knows reads as an end by itself."""
    return "length" if value == "length" else "stop"


def _input(message: pb.GenerationInput) -> Prompt:
    if not message.messages:
        return message.prompt
    return tuple(Message(one.role, one.content, one.name) for one in message.messages)


def _input_message(prompt: Prompt) -> pb.GenerationInput:
    if isinstance(prompt, str):
        return pb.GenerationInput(prompt=prompt)
    messages = [pb.ChatMessage(role=one.role, content=one.content, name=one.name) for one in prompt]
    return pb.GenerationInput(messages=messages)


def _sampling(message: pb.SamplingOptions) -> SamplingOptions:
    return SamplingOptions(
        temperature=message.temperature if message.HasField("temperature") else 1.0,
        top_p=message.top_p if message.HasField("top_p") else 1.0,
        top_k=message.top_k,
        min_p=message.min_p,
        frequency_penalty=message.frequency_penalty,
        presence_penalty=message.presence_penalty,
        repetition_penalty=message.repetition_penalty if message.HasField("repetition_penalty") else 1.0,
        logit_bias=dict(message.logit_bias),
        seed=message.seed if message.HasField("seed") else None,
    )


def _sampling_message(sampling: SamplingOptions) -> pb.SamplingOptions:
    return pb.SamplingOptions(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        frequency_penalty=sampling.frequency_penalty,
        presence_penalty=sampling.presence_penalty,
        repetition_penalty=sampling.repetition_penalty,
        logit_bias=sampling.logit_bias,
        seed=sampling.seed,
    )


def _logprob(message: pb.TokenLogprob) -> TokenLogprob:
    return TokenLogprob(message.token, message.logprob, [_logprob(one) for one in message.top])


def _logprob_message(one: TokenLogprob) -> pb.TokenLogprob:
    return pb.TokenLogprob(token=one.token, logprob=one.logprob, top=[_logprob_message(other) for other in one.top])


__all__ = [
    "FINISH_REASONS",
    "GENERATION",
    "Choice",
    "Conversation",
    "FinishReason",
    "Generation",
    "GenerationChunk",
    "GenerationRequest",
    "GenerationResult",
    "Message",
    "Prompt",
    "SamplingOptions",
    "Timing",
    "TokenLogprob",
]
