"""The history that all changes are written to, as people read it."""

from services.kit.core.hash_chain import HistoryFilter
from services.registry.ports import HistoryEntry, Ports


async def list_history(
    tenant: str, ports: Ports, chosen: HistoryFilter, *, after: int = 0, before: int = 0, limit: int
) -> list[HistoryEntry]:
    async with ports.store.reading() as tx:
        return await tx.history(tenant, chosen, after=after, before=before, limit=limit)


async def list_chain(tenant: str, ports: Ports, *, after: int, limit: int) -> list[HistoryEntry]:
    """Every number of the chain that all tenants share, so that none can be missing unseen."""
    async with ports.store.reading() as tx:
        return await tx.chain(tenant, after=after, limit=limit)


async def history_head(ports: Ports) -> tuple[int, str]:
    """Number and hash of the last fact; 0 and the genesis hash before the first."""
    async with ports.store.reading() as tx:
        return await tx.history_head()
