"""The keyring file, changed on another thread: it waits for the disk, and for others who change it."""

import asyncio
from functools import partial

from services.gateway.ports import Keys
from services.kit.identity.keys import KeyRecord, KeyringFile, NewKey


class KeyringThread(Keys):
    def __init__(self, file: KeyringFile) -> None:
        self._file = file

    async def create(self, new_key: NewKey, *, by: str) -> tuple[KeyRecord, str]:
        return await asyncio.to_thread(partial(self._file.create, new_key, by=by))

    async def list(self, *, tenant: str, with_revoked: bool) -> list[KeyRecord]:
        return await asyncio.to_thread(partial(self._file.list, tenant=tenant, with_revoked=with_revoked))

    async def revoke(self, key: str, *, tenant: str, by: str, even_if_last: bool) -> KeyRecord:
        revoke = partial(self._file.revoke, key, tenant=tenant, by=by, even_if_last=even_if_last)
        return await asyncio.to_thread(revoke)
