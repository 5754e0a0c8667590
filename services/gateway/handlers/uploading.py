"""Taking a data set's content: whole, checked and on disk under its hash, or nothing."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

from services.contracts.content import Content
from services.gateway.domain.requests import Caller
from services.gateway.domain.uploads import NewContent, TextCheck, Uploaded, check_content, check_upload
from services.gateway.ports import Ports
from services.gateway.telemetry import UPLOADED_BYTES
from services.kit.core.idempotency import bind_key

ReportProgress: TypeAlias = Callable[[int], Awaitable[None]]
"""Hears how many bytes have come."""


async def upload_dataset(
    announced: NewContent,
    chunks: AsyncIterator[bytes],
    caller: Caller,
    ports: Ports,
    report: Callable[[int], Awaitable[None]],
) -> Uploaded:
    """Keeps the content under its hash; `tell` hears after each part how much has come.

    An upload that breaks off or is refused leaves nothing. Raises what `check_upload`, `TextCheck` and `check_content`
    raise, KeyReused when the key came with another content, TooManyUploads, StoreFull and UploadStoreDown.
    """
    check_upload(announced, limit_bytes=ports.policy.upload_limit_bytes)
    check = TextCheck(ports.policy.upload_limit_bytes)
    async with ports.uploads.begin() as upload:
        async for chunk in chunks:
            check.take(chunk)
            await upload.write(chunk)
            await report(check.received_bytes)
        check.end()
        content = await upload.content()
        check_content(announced, content)
        await _take_key(announced, content, caller, ports)
        uri, there = await upload.keep(caller.tenant, announced.dataset, announced.format)
    UPLOADED_BYTES.add(content.size_bytes, tenant=caller.tenant)
    return Uploaded(announced.dataset, announced.format, uri, content, already_there=there)


async def _take_key(announced: NewContent, content: Content, caller: Caller, ports: Ports) -> None:
    """A content's address follows from the content, so a repetition needs no answer from before: only the same key."""
    sent = "UploadDataset", announced.dataset, announced.format, content.sha256
    taken = bind_key(caller.tenant, caller.idempotency_key, *(part.encode() for part in sent))
    if taken is not None:
        async with ports.store.transaction() as tx:
            if await tx.find_idempotent_response(taken) is None:
                await tx.save_idempotent_response(taken, content.sha256)
