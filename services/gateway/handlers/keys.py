"""Making, listing and revoking keys, each within the caller's own tenant."""

from dataclasses import replace

from services.gateway.domain.requests import Caller
from services.gateway.errors import OtherTenant
from services.gateway.ports import Ports
from services.kit.core.log import logger
from services.kit.identity.keys import KeyRecord, NewKey


async def create_key(wanted: NewKey, caller: Caller, ports: Ports) -> tuple[KeyRecord, str]:
    """A key of the caller's own tenant, and its secret. Raises OtherTenant, and what the keyring refuses."""
    if wanted.tenant not in {"", caller.tenant}:
        raise OtherTenant(tenant=wanted.tenant[:63])
    made, secret = await ports.keys.create(replace(wanted, tenant=caller.tenant), by=caller.actor)
    logger.info("%s made the key %s (%s, %s)", caller.actor, made.id, made.role, made.tenant)
    return made, secret


async def list_keys(
    caller: Caller, ports: Ports, *, after: str, limit: int, with_revoked: bool
) -> tuple[list[KeyRecord], str]:
    """One page of the caller's tenant's keys, and the token of the next page, if there is one."""
    found = await ports.keys.list(tenant=caller.tenant, with_revoked=with_revoked)
    start = next((place + 1 for place, one in enumerate(found) if one.id == after), 0)
    page = found[start : start + limit]
    return page, page[-1].id if start + limit < len(found) else ""


async def revoke_key(key: str, caller: Caller, ports: Ports, *, even_if_last: bool) -> KeyRecord:
    """Takes a key of the caller's own tenant away. Raises UnknownKey, LastAdmin or ServiceKeyKept."""
    revoked = await ports.keys.revoke(key, tenant=caller.tenant, by=caller.actor, even_if_last=even_if_last)
    logger.info("%s revoked the key %s (%s, %s)", caller.actor, revoked.id, revoked.role, revoked.tenant)
    return revoked
