"""The gateway's way to the replica without the wire between, and mirrored questions asked one after another."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from services.contracts.errors import Refusal, Relayed
from services.gateway.domain.requests import Answer, LabelScore, Prediction
from services.gateway.domain.routing import Replica
from services.gateway.errors import ReplicaLost
from services.gateway.ports import Question
from services.inference.handlers import Classified, Classify, classify
from services.inference.ports import Ports as InferencePorts
from services.kit.core import telemetry


@dataclass
class DirectReplicas:
    """`Replicas` of the gateway: asks the inference room's own use case."""

    doors: dict[str, InferencePorts] = field(default_factory=dict)
    """By replica; whoever is away is not in it."""

    def keep(self, replicas: Iterable[Replica]) -> None:
        """There is no line to keep: a replica is asked where it stands."""

    def waiting(self, replica: str) -> int | None:
        return 0 if replica in self.doors else None

    async def ask(self, replica: str, question: Question) -> Answer:
        if replica not in self.doors:
            raise ReplicaLost(retry_after_seconds=1.0)
        command = Classify(
            tenant=question.tenant,
            deployment=question.deployment,
            texts=question.texts,
            deadline=question.deadline,
            request=question.request,
            version=question.version,
            mirrored=question.mirrored,
        )
        try:
            with telemetry.attached({"traceparent": question.traceparent}):
                return _answer(await classify(command, self.doors[replica]))
        except Refusal as refusal:
            raise Relayed(refusal.kind, refusal.body()) from refusal


@dataclass
class QueuedMirrors:
    """`Mirrors` of the gateway: kept until the house asks them, in order."""

    replicas: DirectReplicas
    waiting: list[tuple[str, Question]] = field(default_factory=list)
    failed: int = 0

    def send(self, replica: str, question: Question) -> None:
        self.waiting.append((replica, question))

    async def ask_all(self) -> None:
        waiting, self.waiting = self.waiting, []
        for replica, question in waiting:
            try:
                await self.replicas.ask(replica, question)
            except Refusal:
                self.failed += 1


def _answer(classified: Classified) -> Answer:
    predictions = []
    for scored in classified.answers:
        scores = tuple(LabelScore(*pair) for pair in zip(classified.labels, scored.scores, strict=True))
        best = max(scores, key=lambda part: part.score)
        predictions.append(Prediction(label=best.label, score=best.score, scores=scores))
    return Answer(
        request_id=classified.request,
        deployment=classified.deployment,
        model=classified.model,
        version=classified.version,
        predictions=tuple(predictions),
        tokens=sum(scored.tokens for scored in classified.answers),
    )
