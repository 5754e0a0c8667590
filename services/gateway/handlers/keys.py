"""Making, listing and revoking keys, each within the caller's own tenant."""

from dataclasses import replace

from services.gateway.domain.requests import Caller
from services.gateway.errors import OtherTenant
from services.gateway.ports import Ports
from services.kit.core.log import logger
from services.kit.identity.keys import KeyRecord, NewKey


async def create_key(new_key: NewKey, caller: Caller, ports: Ports) -> tuple[KeyRecord, str]:
    """A key of the caller's own tenant, and its secret. Raises OtherTenant, and what the keyring refuses."""
    if new_key.tenant not in {"", caller.tenant}:
        raise OtherTenant(tenant=new_key.tenant[:63])
    made, secret = await ports.keys.create(replace(new_key, tenant=caller.tenant), by=caller.actor)
    logger.info("%s made the key %s (%s, %s)", caller.actor, made.id, made.role, made.tenant)
    return made, secret


async def list_keys(
    caller: Caller, ports: Ports, *, after: str, limit: int, with_revoked: bool
) -> tuple[list[KeyRecord], str]:
    """One page of the caller's tenant's keys, and the token of the next page, if there is one."""
    records = await ports.keys.list(tenant=caller.tenant, with_revoked=with_revoked)
    start = next((index + 1 for index, one in enumerate(records) if one.id == after), 0)
    page = records[start : start + limit]
    return page, page[-1].id if start + limit < len(records) else ""


async def revoke_key(key: str, caller: Caller, ports: Ports, *, even_if_last: bool) -> KeyRecord:
    """Takes a key of the caller's own tenant away. Raises UnknownKey, LastAdmin or ServiceKeyIsPermanent."""
    revoked = await ports.keys.revoke(key, tenant=caller.tenant, by=caller.actor, even_if_last=even_if_last)
    logger.info("%s revoked the key %s (%s, %s)", caller.actor, revoked.id, revoked.role, revoked.tenant)
    return revoked
