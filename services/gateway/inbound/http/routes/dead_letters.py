"""Dead letters, for admins."""

from typing import Annotated

from fastapi import APIRouter, Query

from services.contracts.rpc import dead_letters_pb2
from services.gateway.inbound import dead_letters as converters
from services.gateway.inbound.grpc_services import DEAD_LETTERS
from services.gateway.inbound.http.calls import Call
from services.gateway.inbound.http.control_route import ControlRoute
from services.gateway.inbound.http.models.dead_letters import (
    DeadLetterContent,
    ListDeadLettersQuery,
    ListDeadLettersResponse,
    RedeliverDeadLettersRequest,
    RedeliverDeadLettersResponse,
)
from services.gateway.inbound.http.parameters import Offset, Partition, TopicName
from services.gateway.inbound.http.preconditions import EntityResponse
from services.gateway.inbound.http.rpc_route import rpc

router = APIRouter(route_class=ControlRoute)


@router.get("/api/v1/dead-letters")
@rpc(DEAD_LETTERS, "ListDeadLetters")
async def list_dead_letters(query: Annotated[ListDeadLettersQuery, Query()], call: Call) -> ListDeadLettersResponse:
    """Events that services gave up, the newest first."""
    return ListDeadLettersResponse.of(
        await converters.list_all(query.to(dead_letters_pb2.ListDeadLettersRequest), call.caller, call.ports)
    )


@router.get("/api/v1/dead-letters/{topic}/{partition}/{offset}", response_class=EntityResponse)
@rpc(DEAD_LETTERS, "GetDeadLetter")
async def get_dead_letter(topic: TopicName, partition: Partition, offset: Offset, call: Call) -> DeadLetterContent:
    """One dead letter, with its headers and its body."""
    return DeadLetterContent.of(
        await converters.get(
            dead_letters_pb2.GetDeadLetterRequest(topic=topic, partition=int(partition), offset=offset),
            call.caller,
            call.ports,
        )
    )


@router.post("/api/v1/dead-letters:redeliver")
@rpc(DEAD_LETTERS, "RedeliverDeadLetters")
async def redeliver_dead_letters(body: RedeliverDeadLettersRequest, call: Call) -> RedeliverDeadLettersResponse:
    """Sends dead letters again; a consumer that handled an event ignores it."""
    return RedeliverDeadLettersResponse.of(
        await converters.redeliver(body.to(dead_letters_pb2.RedeliverDeadLettersRequest), call.caller, call.ports)
    )
