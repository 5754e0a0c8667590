"""Classification: each text gets the likeliest of the model's labels."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Final

from services.contracts.names import Label
from services.contracts.rpc import inference_pb2 as pb
from services.contracts.tasks.feedback import Feedback
from services.contracts.tasks.protobuf import parse
from services.contracts.tasks.records import Answer, InferenceRecord, Item
from services.contracts.tasks.task import AnswerInfo, Metric, RequestLimits, Task
from services.contracts.tasks.texts import check_texts, logged_texts, read_flag, read_texts
from services.contracts.tasks.vectors import Embedding, to_base64

MAX_SCORES: Final = 100
"""Labels told of one text, the best first: a thousand labels times 64 texts would not fit into one message."""


@dataclass(frozen=True, slots=True)
class ClassificationRequest:
    """Without `truncate` a text that is longer than the model reads is refused, instead of its beginning being read."""

    texts: Sequence[str]
    with_embeddings: bool = False
    truncate: bool = True


@dataclass(frozen=True, slots=True)
class LabelScore:
    label: Label
    score: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """The likeliest label of one text, and the labels' probabilities, the likeliest first."""

    label: Label
    score: float
    scores: tuple[LabelScore, ...]


@dataclass(frozen=True, slots=True)
class ClassificationResult:
    """One prediction a text, in the texts' order; the embeddings too where they were asked for."""

    predictions: Sequence[Prediction]
    embeddings: Sequence[Embedding] = ()


class Classification(Task[ClassificationRequest, ClassificationResult]):
    name: ClassVar[str] = "classification"
    verb: ClassVar[str] = "classify"
    fields: ClassVar[frozenset[str]] = frozenset({"texts", "with_embeddings", "whole_texts"})
    metric: ClassVar[Metric] = Metric("accuracy", "share of requests whose texts got the right label")

    def read(self, sent: Mapping[str, Any]) -> ClassificationRequest:
        return ClassificationRequest(
            texts=read_texts(sent),
            with_embeddings=read_flag(sent, "with_embeddings"),
            truncate=not read_flag(sent, "whole_texts"),
        )

    def decode(self, payload: bytes) -> ClassificationRequest:
        return self.from_message(parse(pb.ClassifyRequest, payload))

    def from_message(self, message: pb.ClassifyRequest) -> ClassificationRequest:
        """For whoever reads more of the message than the task does."""
        return ClassificationRequest(message.texts, message.with_embeddings, not message.whole_texts)

    def encode(self, request: ClassificationRequest) -> bytes:
        message = pb.ClassifyRequest(
            texts=request.texts, with_embeddings=request.with_embeddings, whole_texts=not request.truncate
        )
        return message.SerializeToString()

    def check(self, request: ClassificationRequest, limits: RequestLimits) -> None:
        check_texts(request.texts, limits, truncate=request.truncate)

    def size(self, request: ClassificationRequest) -> int:
        return len(request.texts)

    def encode_result(self, result: ClassificationResult, info: AnswerInfo) -> bytes:
        """As clients of gRPC have it, so that the gateway need not open it for them."""
        message = pb.ClassifyResponse(
            request_id=info.request_id,
            deployment=info.deployment,
            model=info.model,
            version=info.version,
            tokens=info.tokens,
            predictions=[_to_message(prediction) for prediction in result.predictions],
            embeddings=[pb.Embedding(values=values) for values in result.embeddings],
        )
        return message.SerializeToString()

    def decode_result(self, payload: bytes) -> ClassificationResult:
        message = parse(pb.ClassifyResponse, payload)
        return ClassificationResult(
            predictions=[_from_message(prediction) for prediction in message.predictions],
            embeddings=[array("f", embedding.values) for embedding in message.embeddings],
        )

    def show(self, result: ClassificationResult) -> dict[str, Any]:
        shown: dict[str, Any] = {"predictions": result.predictions}
        if result.embeddings:
            shown["embeddings"] = [{"values": values.tolist()} for values in result.embeddings]
        return shown

    def lines(self, result: ClassificationResult) -> list[dict[str, Any]]:
        lines = [asdict(prediction) for prediction in result.predictions]
        for line, values in zip(lines, result.embeddings, strict=False):
            line["embedding"] = to_base64(values)
        return lines

    def completed(self, result: ClassificationResult) -> dict[str, Any]:
        return {
            "predictions": list(result.predictions),
            "embeddings": [to_base64(values) for values in result.embeddings],
        }

    def items(
        self, request: ClassificationRequest, result: ClassificationResult | None, *, with_inputs: bool
    ) -> list[Item]:
        items: list[Item] = logged_texts(request.texts) if with_inputs else [{} for _ in request.texts]
        if result is not None:
            for item, prediction in zip(items, result.predictions, strict=True):
                item |= {"label": prediction.label, "score": prediction.score}
        return items

    def answers(self, record: InferenceRecord) -> list[Answer]:
        return [item.get("label") for item in record.items]

    def judge(self, answer: Answer, feedback: Feedback) -> float | None:
        truth = feedback.label if feedback.label is not None else feedback.reference
        if truth is None:
            return feedback.grade
        return None if answer is None else float(answer == truth)

    def compare(self, left: Answer, right: Answer) -> float | None:
        return None if left is None or right is None else float(left == right)


CLASSIFICATION: Final = Classification()


def ranked(labels: Sequence[str], scores: Sequence[float]) -> Prediction:
    """Of one text, from the probabilities in the order of the model's labels."""
    best = sorted(zip(scores, labels, strict=True), key=lambda pair: -pair[0])[:MAX_SCORES]
    score, label = best[0]
    return Prediction(label, score, tuple(LabelScore(label, score) for score, label in best))


def _to_message(prediction: Prediction) -> pb.Prediction:
    scores = [pb.LabelScore(label=part.label, score=part.score) for part in prediction.scores]
    return pb.Prediction(label=prediction.label, score=prediction.score, scores=scores)


def _from_message(message: pb.Prediction) -> Prediction:
    scores = tuple(LabelScore(part.label, part.score) for part in message.scores)
    return Prediction(message.label, message.score, scores)
