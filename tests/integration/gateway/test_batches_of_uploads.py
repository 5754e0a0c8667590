"""What was uploaded through the gateway's door may be a batch's input: its own tenant's, whatever the store."""

import asyncio
from pathlib import Path

import pytest

from services.contracts.access import KeyRole
from services.kit.core.clock import SystemClock
from services.kit.identity.auth import ensure_keys
from services.kit.identity.keys import KeyringFile, NewKey
from tests.integration.gateway.gateway import GatewayUnderTest, target
from tests.integration.gateway.test_batches import BATCHES_PATH, create, ended, output, rows, serving
from tests.waiting import LIMIT_SECONDS

CONTENT_PATH = "/api/v1/datasets/reviews/content"


async def upload(gateway: GatewayUnderTest, count: int) -> str:
    headers = {"content-type": "application/x-ndjson"}
    reply = await gateway.client.post(CONTENT_PATH, content=rows(count).encode(), headers=headers)
    assert reply.status_code == 201, reply.text
    uri: str = reply.json()["uri"]
    return uri


@pytest.mark.parametrize("store", ["", "memory://batch-uploads"], ids=["a folder", "no folder"])
async def test_an_uploaded_content_is_classified_row_by_row(
    tmp_path: Path, embedded_bootstrap: str, store: str
) -> None:
    async with serving(tmp_path, embedded_bootstrap, "", MILLRACE_UPLOAD_STORE=store) as gateway:
        batch = (await create(gateway, await upload(gateway, 20)))["batch"]
        response = await ended(gateway, batch)
        assert (response["status"], response["rows"], response["failed_rows"]) == ("succeeded", 20, 0), response
        assert [line["row"] for line in await output(gateway, batch)] == list(range(1, 21))


@pytest.mark.parametrize("store", ["", "memory://batch-uploads"], ids=["a folder", "no folder"])
async def test_another_tenants_content_is_as_if_it_were_not_there(
    tmp_path: Path, embedded_bootstrap: str, store: str
) -> None:
    ensure_keys(tmp_path / "keys")
    _, key = KeyringFile(tmp_path / "keys", SystemClock()).create(NewKey(KeyRole.ADMIN, "acme"), by="test")
    async with serving(tmp_path, embedded_bootstrap, "", MILLRACE_UPLOAD_STORE=store) as gateway:
        uri = await upload(gateway, 3)
        await gateway.deploy(target(2), tenant="acme")
        theirs, request = {"authorization": f"Bearer {key}"}, {"deployment": "news", "uri": uri}
        async with asyncio.timeout(LIMIT_SECONDS):
            while (reply := await gateway.client.post(BATCHES_PATH, json=request, headers=theirs)).status_code == 404:  # noqa: ASYNC110 - waits for news
                await asyncio.sleep(0.02)  # the gateway has not heard of their deployment yet
        assert reply.status_code == 422, reply.text
        assert reply.json()["error"]["code"] in {"outside_roots", "unsupported_address"}
