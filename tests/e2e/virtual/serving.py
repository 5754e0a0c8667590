"""The gateway's way to the replica without the wire between, and mirrored requests asked one after another."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field

from services.contracts.errors import MillraceError, Relayed
from services.contracts.tasks.stream import PredictEvent
from services.gateway.domain.routing import Replica
from services.gateway.errors import ReplicaLost
from services.gateway.ports import ReplicaRequest
from services.inference.handlers.predictions import Predict, predict
from services.inference.ports import Ports as InferencePorts


@dataclass
class DirectReplicas:
    """`Replicas` of the gateway: asks the inference room's own use case."""

    replicas_by_name: dict[str, InferencePorts] = field(default_factory=dict)
    """By replica; whoever is away is not in it."""

    def keep(self, replicas: Iterable[Replica]) -> None:
        """There is no line to keep: a replica is asked where it stands."""

    def waiting(self, replica: str) -> int | None:
        return 0 if replica in self.replicas_by_name else None

    async def predict(self, replica: str, request: ReplicaRequest) -> AsyncGenerator[PredictEvent, None]:
        if replica not in self.replicas_by_name:
            raise ReplicaLost(retry_after_seconds=1.0)
        command = Predict(
            tenant=request.tenant,
            deployment=request.deployment,
            task=request.task,
            payload=request.payload,
            deadline=request.deadline,
            request=request.request_id,
            version=request.version,
            source=request.source,
        )
        try:
            async with aclosing(predict(command, self.replicas_by_name[replica])) as events:
                async for event in events:
                    yield event
        except MillraceError as error:
            raise Relayed(error.kind, error.body()) from error


@dataclass
class QueuedMirrors:
    """`Mirrors` of the gateway: kept until the house asks them, in order."""

    replicas: DirectReplicas
    waiting: list[tuple[str, ReplicaRequest]] = field(default_factory=list)
    failed: int = 0

    def send(self, replica: str, request: ReplicaRequest) -> None:
        self.waiting.append((replica, request))

    async def classify_all(self) -> None:
        waiting, self.waiting = self.waiting, []
        for replica, request in waiting:
            try:
                async with aclosing(self.replicas.predict(replica, request)) as events:
                    async for _ in events:
                        pass
            except MillraceError:
                self.failed += 1
