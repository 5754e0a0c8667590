"""What people ask for: data sets and their versions, runs and their logs."""

from typing import Final

from services.trainer.domain.datasets import Dataset, DatasetVersion, check_content_hash
from services.trainer.domain.runs import Run, RunFilter
from services.trainer.errors import AmbiguousVersion, UnknownDataset, UnknownPage, UnknownVersion
from services.trainer.handlers.transitions import run_of
from services.trainer.ports import Ports, Tx

LOG_LINES: Final = 1_000


async def get_run(tenant: str, name: str, ports: Ports) -> Run:
    """Raises UnknownRun."""
    async with ports.store.reading() as tx:
        return await run_of(tx, tenant, name)


async def list_runs(tenant: str, ports: Ports, run_filter: RunFilter, *, before: str, limit: int) -> list[Run]:
    async with ports.store.reading() as tx:
        return await tx.runs(tenant, run_filter, before=before, limit=limit)


async def get_dataset(tenant: str, name: str, ports: Ports) -> tuple[Dataset, DatasetVersion | None]:
    """The data set, and the version of its present content once that is known. Raises UnknownDataset."""
    async with ports.store.reading() as tx:
        dataset = await _dataset_of(tx, tenant, name)
        version = await tx.version(tenant, name, dataset.content_hash) if dataset.content_hash else None
    return dataset, version


async def list_versions(tenant: str, name: str, ports: Ports, *, after: str, limit: int) -> list[DatasetVersion]:
    """The newest first, from the one after the content `after` on. Raises UnknownDataset, UnknownPage."""
    async with ports.store.reading() as tx:
        await _dataset_of(tx, tenant, name)
        last = await tx.version(tenant, name, after) if after else None
        if after and last is None:
            raise UnknownPage
        return await tx.versions(tenant, name, after=last, limit=limit)


async def get_version(tenant: str, name: str, content_hash: str, ports: Ports) -> DatasetVersion:
    """Raises UnknownDataset and what `find_version` raises."""
    async with ports.store.reading() as tx:
        await _dataset_of(tx, tenant, name)
        return await find_version(tx, tenant, name, content_hash)


async def find_version(tx: Tx, tenant: str, name: str, content_hash: str) -> DatasetVersion:
    """By the hash or the beginning of it. Raises BadContentHash, UnknownVersion, AmbiguousVersion."""
    check_content_hash(content_hash)
    matches = await tx.versions_like(tenant, name, content_hash, limit=2)
    if not matches:
        raise UnknownVersion(dataset=name, content_hash=content_hash)
    if len(matches) > 1:
        raise AmbiguousVersion(content_hash=content_hash)
    return matches[0]


async def _dataset_of(tx: Tx, tenant: str, name: str) -> Dataset:
    dataset = await tx.dataset(tenant, name)
    if dataset is None:
        raise UnknownDataset(dataset=name)
    return dataset


async def list_datasets(tenant: str, ports: Ports, *, after: str, limit: int) -> list[Dataset]:
    async with ports.store.reading() as tx:
        return await tx.datasets(tenant, after=after, limit=limit)


async def read_log(tenant: str, name: str, ports: Ports, *, after: int) -> tuple[Run, list[str]]:
    """The run as it stood before the lines were read, and at most `LOG_LINES` of them.

    So the lines of an ended run are all of them once fewer come.
    """
    run = await get_run(tenant, name, ports)
    return run, await ports.executor.logs(run.handle, after, LOG_LINES) if run.handle is not None else []
