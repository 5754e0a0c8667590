"""Between the messages about keys and what the handlers know; the same for REST and gRPC."""

from datetime import timedelta

from services.contracts.access import KeyRole
from services.contracts.rpc import keys_pb2
from services.gateway.domain.requests import Caller
from services.gateway.handlers.keys import create_key, list_keys, revoke_key
from services.gateway.ports import Ports
from services.kit.identity.auth import LIMIT_NAMES, KeyLimits
from services.kit.identity.keys import KeyRecord, NewKey, RoleNotGranted
from services.kit.transport.grpc_requests import page_size, timestamp


async def answer_create(request: keys_pb2.CreateKeyRequest, caller: Caller, ports: Ports) -> keys_pb2.CreateKeyResponse:
    if request.role not in tuple(KeyRole):
        raise RoleNotGranted(role=request.role[:50])
    limits = {name: getattr(request.limits, name) for name in LIMIT_NAMES if request.limits.HasField(name)}
    new_key = NewKey(
        role=KeyRole(request.role),
        tenant=request.tenant,
        name=request.name,
        valid=timedelta(seconds=request.valid_seconds) if request.valid_seconds else None,
        limits=KeyLimits(**limits),
        idempotency_key=caller.idempotency_key,
    )
    made, secret = await create_key(new_key, caller, ports)
    return keys_pb2.CreateKeyResponse(key=_key(made), secret=secret)


async def answer_list(request: keys_pb2.ListKeysRequest, caller: Caller, ports: Ports) -> keys_pb2.ListKeysResponse:
    size = page_size(request.page.page_size)
    records, following = await list_keys(
        caller, ports, after=request.page.page_token, limit=size, with_revoked=request.with_revoked
    )
    return keys_pb2.ListKeysResponse(keys=map(_key, records), next_page_token=following)


async def answer_revoke(request: keys_pb2.RevokeKeyRequest, caller: Caller, ports: Ports) -> keys_pb2.Key:
    return _key(await revoke_key(request.key, caller, ports, even_if_last=request.even_if_last))


def _key(record: KeyRecord) -> keys_pb2.Key:
    limits = {name: value for name in LIMIT_NAMES if (value := getattr(record.limits, name)) is not None}
    return keys_pb2.Key(
        id=record.id,
        name=record.name,
        role=record.role,
        tenant=record.tenant,
        created_at=timestamp(record.created),
        created_by=record.created_by,
        expires_at=timestamp(record.expires),
        last_used_at=timestamp(record.last_used),
        limits=keys_pb2.KeyLimits(**limits) if limits else None,
        revoked_at=timestamp(record.revoked),
        revoked_by=record.revoked_by,
    )
