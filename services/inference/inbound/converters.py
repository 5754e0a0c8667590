"""Between protobuf messages and commands; nothing else here or elsewhere knows both."""

from typing import Final

from services.contracts.errors import BadField
from services.contracts.names import DEFAULT_TENANT
from services.contracts.rpc import replica_pb2 as pb
from services.contracts.tasks.records import Source
from services.contracts.tasks.stream import Delta, PredictEvent
from services.inference.handlers.predictions import Predict
from services.inference.ports import Bounds

_SOURCES: Final = frozenset(Source)


def to_command(request: pb.TaskRequest, now: float, bounds: Bounds) -> Predict:
    """`now` is monotonic. Raises BadField."""
    if request.source and request.source not in _SOURCES:
        raise BadField(name="source", problem=f"it is none of {', '.join(Source)}", field="source")
    seconds = request.deadline_ms / 1000 or bounds.default_deadline_seconds
    return Predict(
        deployment=request.deployment,
        task=request.task,
        payload=request.payload,
        deadline=now + min(seconds, bounds.longest_deadline_seconds),
        request=request.request_id,
        version=request.version,
        source=Source(request.source or Source.LIVE),
        tenant=request.tenant or DEFAULT_TENANT,
        model=request.model,
    )


def to_event(number: int, event: PredictEvent) -> pb.ReplicaEvent:
    if isinstance(event, Delta):
        return pb.ReplicaEvent(id=number, delta=pb.Delta(payload=event.payload))
    result = pb.Result(payload=event.payload, model=event.model, version=event.version, tokens=event.tokens)
    return pb.ReplicaEvent(id=number, result=result)
