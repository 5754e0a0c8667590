"""API keys, for admins."""

from typing import Annotated

from fastapi import APIRouter, Query

from services.contracts.rpc import keys_pb2
from services.gateway.inbound import keys as converters
from services.gateway.inbound.grpc_services import KEYS
from services.gateway.inbound.http.calls import Call
from services.gateway.inbound.http.control_route import ControlRoute
from services.gateway.inbound.http.models.keys import (
    CreateKeyRequest,
    CreateKeyResponse,
    Key,
    ListKeysQuery,
    ListKeysResponse,
    RevokeKeyRequest,
)
from services.gateway.inbound.http.parameters import KeyId
from services.gateway.inbound.http.rpc_route import rpc

router = APIRouter(route_class=ControlRoute)


@router.get("/api/v1/keys")
@rpc(KEYS, "ListKeys")
async def list_keys(query: Annotated[ListKeysQuery, Query()], call: Call) -> ListKeysResponse:
    """The keys of the caller's tenant, the oldest first; never a secret."""
    return ListKeysResponse.of(
        await converters.answer_list(query.to(keys_pb2.ListKeysRequest), call.caller, call.ports)
    )


@router.post("/api/v1/keys", status_code=201)
@rpc(KEYS, "CreateKey")
async def create_key(body: CreateKeyRequest, call: Call) -> CreateKeyResponse:
    """Makes a key; its secret is told this once."""
    return CreateKeyResponse.of(
        await converters.answer_create(body.to(keys_pb2.CreateKeyRequest), call.caller, call.ports)
    )


@router.post("/api/v1/keys/{key}:revoke")
@rpc(KEYS, "RevokeKey")
async def revoke_key(key: KeyId, body: RevokeKeyRequest, call: Call) -> Key:
    """Takes a key away, at every endpoint within two seconds."""
    return Key.of(await converters.answer_revoke(body.to(keys_pb2.RevokeKeyRequest, key=key), call.caller, call.ports))
