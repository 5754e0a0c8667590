"""What an encoder's scores come to, by the task that was asked for."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from services.contracts.tasks import CLASSIFICATION, EMBEDDING
from services.contracts.tasks.classification import ClassificationRequest, ClassificationResult, ranked
from services.contracts.tasks.embedding import EmbeddingRequest, EmbeddingResult
from services.contracts.tasks.vectors import from_bytes
from services.inference.domain.scoring import Done, EngineRequest, Scored

Head: TypeAlias = Callable[[Any, Sequence[Scored], Sequence[str]], Any]
"""Takes the typed request, the scores of its texts and the model's labels; gives the typed result."""


def classify(request: ClassificationRequest, scored: Sequence[Scored], labels: Sequence[str]) -> ClassificationResult:
    return ClassificationResult(
        predictions=[ranked(labels, text.scores) for text in scored],
        embeddings=[from_bytes(text.embedding) for text in scored] if request.with_embeddings else (),
    )


def embed(request: EmbeddingRequest, scored: Sequence[Scored], labels: Sequence[str]) -> EmbeddingResult:
    return EmbeddingResult([from_bytes(text.embedding) for text in scored])


HEADS: Final[Mapping[str, Head]] = {CLASSIFICATION.name: classify, EMBEDDING.name: embed}
ENCODER_TASKS: Final = frozenset(HEADS)


def answer(request: EngineRequest, scored: Sequence[Scored], labels: Sequence[str]) -> Done:
    """The one answer that an encoder gives."""
    return Done(
        result=HEADS[request.task.name](request.request, scored, labels),
        tokens=sum(text.tokens for text in scored),
        embeddings=[text.embedding_half for text in scored],
    )
