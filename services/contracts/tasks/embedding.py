"""Embedding: each text becomes a vector of unit length, in which texts that mean much the same lie near each other."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from services.contracts.rpc import inference_pb2 as pb
from services.contracts.tasks.feedback import Feedback
from services.contracts.tasks.protobuf import parse
from services.contracts.tasks.records import Answer, InferenceRecord, Item, representative
from services.contracts.tasks.task import AnswerInfo, Metric, RequestLimits, Task
from services.contracts.tasks.texts import check_texts, logged_texts, read_flag, read_texts
from services.contracts.tasks.vectors import Embedding, cosine, half_from_base64, to_base64


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """Without `truncate` a text that is longer than the model reads is refused, instead of its beginning being read."""

    texts: Sequence[str]
    truncate: bool = True


@dataclass(frozen=True, slots=True)
class EmbeddingResult:
    """One vector a text, in the texts' order."""

    embeddings: Sequence[Embedding]


class EmbeddingTask(Task[EmbeddingRequest, EmbeddingResult]):
    name: ClassVar[str] = "embedding"
    verb: ClassVar[str] = "embed"
    fields: ClassVar[frozenset[str]] = frozenset({"texts", "whole_texts"})
    metric: ClassVar[Metric] = Metric("usefulness", "mean grade of the requests that somebody rated or scored")

    def read(self, sent: Mapping[str, Any]) -> EmbeddingRequest:
        return EmbeddingRequest(read_texts(sent), truncate=not read_flag(sent, "whole_texts"))

    def decode(self, payload: bytes) -> EmbeddingRequest:
        return self.from_message(parse(pb.EmbedRequest, payload))

    def from_message(self, message: pb.EmbedRequest) -> EmbeddingRequest:
        """For whoever reads more of the message than the task does."""
        return EmbeddingRequest(message.texts, truncate=not message.whole_texts)

    def encode(self, request: EmbeddingRequest) -> bytes:
        return pb.EmbedRequest(texts=request.texts, whole_texts=not request.truncate).SerializeToString()

    def check(self, request: EmbeddingRequest, limits: RequestLimits) -> None:
        check_texts(request.texts, limits, truncate=request.truncate)

    def size(self, request: EmbeddingRequest) -> int:
        return len(request.texts)

    def encode_result(self, result: EmbeddingResult, info: AnswerInfo) -> bytes:
        """As clients of gRPC have it, so that the gateway need not open it for them."""
        message = pb.EmbedResponse(
            request_id=info.request_id,
            deployment=info.deployment,
            model=info.model,
            version=info.version,
            tokens=info.tokens,
            embeddings=[pb.Embedding(values=values) for values in result.embeddings],
        )
        return message.SerializeToString()

    def decode_result(self, payload: bytes) -> EmbeddingResult:
        message = parse(pb.EmbedResponse, payload)
        return EmbeddingResult([array("f", embedding.values) for embedding in message.embeddings])

    def show(self, result: EmbeddingResult) -> dict[str, Any]:
        return {"embeddings": [{"values": values.tolist()} for values in result.embeddings]}

    def lines(self, result: EmbeddingResult) -> list[dict[str, Any]]:
        return [{"embedding": to_base64(values)} for values in result.embeddings]

    def completed(self, result: EmbeddingResult) -> dict[str, Any]:
        return {"embeddings": [to_base64(values) for values in result.embeddings]}

    def items(self, request: EmbeddingRequest, result: EmbeddingResult | None, *, with_inputs: bool) -> list[Item]:
        return logged_texts(request.texts) if with_inputs else [{} for _ in request.texts]

    def answers(self, record: InferenceRecord) -> list[Answer]:
        """The vector of the item that stands for the request; no other is kept."""
        answers: list[Answer] = [None] * len(record.items)
        if answers and record.outcome == "ok":
            answers[representative(record.request, len(answers))] = record.embedding
        return answers

    def judge(self, answer: Answer, feedback: Feedback) -> float | None:
        """A vector is neither right nor wrong: only who has used it can tell."""
        return feedback.grade

    def compare(self, left: Answer, right: Answer) -> float | None:
        """The cosine of the two vectors, at least 0: how well both could stand in one index."""
        if left is None or right is None:
            return None
        one, other = half_from_base64(left), half_from_base64(right)
        angle = cosine(one, other) if one is not None and other is not None else None
        return max(0.0, angle) if angle is not None else None


EMBEDDING: Final = EmbeddingTask()
