"""What a task of a language model is. All that one has of its own stands in its class; the rest is written once.

A request and a result have three forms: JSON (REST, Kafka, batches), the typed value, and the payload: the bytes that
clients of gRPC, the gateway and the replicas pass on to each other. Whoever sends a payload need not open it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from services.contracts.tasks.feedback import Feedback
from services.contracts.tasks.records import Answer, InferenceRecord, Item

Q = TypeVar("Q")
R = TypeVar("R")
C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """How much one request may hold. `tokens` is how much of a text the model reads, None where that is not known."""

    texts: int = 64
    characters: int = 10_000
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class AnswerInfo:
    """What a result is the result of."""

    request_id: str
    deployment: str
    model: str
    version: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Metric:
    """What a judged answer counts towards; its values are 0 to 1, more is better."""

    name: str
    description: str


class Task(ABC, Generic[Q, R]):
    """A kind of request, with the typed request `Q` and the typed result `R`. Frozen, and without state."""

    name: ClassVar[str]
    verb: ClassVar[str]
    """The last segment of its REST path."""
    fields: ClassVar[frozenset[str]]
    """Of its JSON request, beside those that every request has."""
    metric: ClassVar[Metric]
    repeatable: ClassVar[bool] = True
    """Another replica may be asked where one gave no answer: asking twice harms nothing."""

    # --- the request

    @abstractmethod
    def read(self, sent: Mapping[str, Any]) -> Q:
        """From JSON; fields of other names are passed over. Raises BadField."""

    @abstractmethod
    def decode(self, payload: bytes) -> Q:
        """Raises Malformed."""

    @abstractmethod
    def encode(self, request: Q) -> bytes: ...

    @abstractmethod
    def check(self, request: Q, limits: RequestLimits) -> None:
        """The one check of a request, at the edge and, with the model's own limits, at the replica.

        Raises BadField, Malformed, TextTooLong or ContextLengthExceeded, which name the field.
        """

    @abstractmethod
    def size(self, request: Q) -> int:
        """How many items it holds: what its replica's queue and its caller's statistics count."""

    def from_texts(self, texts: Sequence[str], options: Mapping[str, Any]) -> Q:
        """Of the rows of a batch; `options` are other fields of the JSON request. Raises BadField."""
        return self.read({**options, "texts": list(texts)})

    # --- the result

    @abstractmethod
    def encode_result(self, result: R, info: AnswerInfo) -> bytes: ...

    @abstractmethod
    def decode_result(self, payload: bytes) -> R:
        """Raises Malformed."""

    @abstractmethod
    def show(self, result: R) -> dict[str, Any]:
        """As JSON: what an answer holds beside what every answer has."""

    @abstractmethod
    def lines(self, result: R) -> list[dict[str, Any]]:
        """As JSON, by item: what each line of a batch's output holds beside its row and version."""

    def completed(self, result: R) -> dict[str, Any]:
        """The fields of `inference.completed` that hold the result."""
        return {"result": self.show(result)}

    # --- what is logged, and how it is judged

    @abstractmethod
    def items(self, request: Q, result: R | None, *, with_inputs: bool) -> list[Item]:
        """What the log keeps of each item; without a result, of a request on which the version failed."""

    @abstractmethod
    def answers(self, record: InferenceRecord) -> list[Answer]:
        """Of each item of the record, what can be judged and compared; None where nothing of it was kept."""

    @abstractmethod
    def judge(self, answer: Answer, feedback: Feedback) -> float | None:
        """How good the answer was, 0 to 1 of the task's metric; None where the feedback cannot tell."""

    @abstractmethod
    def compare(self, left: Answer, right: Answer) -> float | None:
        """How alike two versions' answers to one item are, 0 to 1; None where that cannot be told."""


class StreamingTask(Task[Q, R], Generic[Q, R, C]):
    """A task whose answer comes in chunks, and then as a whole."""

    @abstractmethod
    def encode_chunk(self, chunk: C) -> bytes: ...

    @abstractmethod
    def decode_chunk(self, payload: bytes) -> C:
        """Raises Malformed."""

    @abstractmethod
    def show_chunk(self, chunk: C) -> dict[str, Any]:
        """As JSON."""
