"""Keys by REST and gRPC: made once, listed without secrets, revoked on every door."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.contracts.rpc import keys_pb2
from services.gateway.inbound.grpc_services import KEYS
from services.kit.core.log import logger
from services.kit.identity.auth import KEYRING_FILE
from tests.integration.gateway.gateway import GatewayUnderTest
from tests.waiting import LIMIT_SECONDS

KEYS_PATH = "/api/v1/keys"


async def make(gateway: GatewayUnderTest, **fields: Any) -> dict[str, Any]:
    reply = await gateway.client.post(KEYS_PATH, json={"role": "client", **fields})
    assert reply.status_code == 201, reply.text
    made: dict[str, Any] = reply.json()
    return made


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


async def status(gateway: GatewayUnderTest, secret: str, path: str = "/openapi.json") -> int:
    return (await gateway.client.get(path, headers=bearer(secret))).status_code


async def until_refused(gateway: GatewayUnderTest, secret: str) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while await status(gateway, secret) != 401:  # noqa: ASYNC110 - asks the door
            await asyncio.sleep(0.05)


async def test_a_key_made_by_rest_works_soon_and_stops_when_revoked(gateway: GatewayUnderTest) -> None:
    made = await make(gateway, name="the web shop", limits={"requests_per_second": 5, "burst": 10})
    secret, key = made["secret"], made["key"]
    assert (key["role"], key["tenant"], key["name"]) == ("client", "default", "the web shop")
    assert key["limits"] == {"requests_per_second": 5.0, "burst": 10}
    assert key["created_by"].startswith("admin:")
    await asyncio.sleep(1.1)
    assert await status(gateway, secret) == 200
    assert await status(gateway, secret, KEYS_PATH) == 403
    listed = (await gateway.client.get(KEYS_PATH)).json()["keys"]
    mine = next(one for one in listed if one["id"] == key["id"])
    assert mine["last_used_at"]
    revoked = await gateway.client.post(f"{KEYS_PATH}/{key['id']}:revoke")
    assert revoked.json()["revoked_by"] == key["created_by"]
    await until_refused(gateway, secret)
    again = await gateway.client.post(f"{KEYS_PATH}/{key['id']}:revoke")
    assert again.json() == revoked.json()
    assert key["id"] not in [one["id"] for one in (await gateway.client.get(KEYS_PATH)).json()["keys"]]
    records = (await gateway.client.get(KEYS_PATH, params={"with_revoked": "true"})).json()["keys"]
    assert key["id"] in [one["id"] for one in records]


async def test_grpc_does_the_same(gateway: GatewayUnderTest) -> None:
    create, revoke = gateway.rpc_method(KEYS, "CreateKey"), gateway.rpc_method(KEYS, "RevokeKey")
    made = await create(keys_pb2.CreateKeyRequest(role="viewer", valid_seconds=3600))
    assert (made.key.expires_at.ToSeconds() - made.key.created_at.ToSeconds()) == 3600
    await asyncio.sleep(1.1)
    assert await status(gateway, made.secret) == 200
    await revoke(keys_pb2.RevokeKeyRequest(key=made.key.id))
    await until_refused(gateway, made.secret)
    listed = await gateway.rpc_method(KEYS, "ListKeys")(keys_pb2.ListKeysRequest(with_revoked=True))
    assert made.key.id in [one.id for one in listed.keys]


async def test_one_idempotency_key_makes_one_key_by_either_transport_and_tells_its_secret_once(
    gateway: GatewayUnderTest,
) -> None:
    headers = {"idempotency-key": "retry-1"}
    replies = await asyncio.gather(
        *(gateway.client.post(KEYS_PATH, json={"role": "client"}, headers=headers) for _ in range(5))
    )
    response = [reply.json() for reply in replies]
    assert len({one["key"]["id"] for one in response}) == 1
    assert sorted(bool(one["secret"]) for one in response) == [False] * 4 + [True]
    again = await gateway.rpc_method(KEYS, "CreateKey")(
        keys_pb2.CreateKeyRequest(role="client"), more=(("idempotency-key", "retry-1"),)
    )
    assert (again.key.id, again.secret) == (response[0]["key"]["id"], "")
    other = await gateway.client.post(KEYS_PATH, json={"role": "admin"}, headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "key_reused")


async def test_the_last_admin_key_must_be_meant(gateway: GatewayUnderTest) -> None:
    listed = (await gateway.client.get(KEYS_PATH)).json()["keys"]
    mine = next(one["id"] for one in listed if one["role"] == "admin")
    refused = await gateway.client.post(f"{KEYS_PATH}/{mine}:revoke")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "last_admin")
    assert refused.headers["x-should-retry"] == "false"
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await gateway.rpc_method(KEYS, "RevokeKey")(keys_pb2.RevokeKeyRequest(key=mine))
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    meant = await gateway.client.post(f"{KEYS_PATH}/{mine}:revoke", json={"even_if_last": True})
    assert meant.status_code == 200


@pytest.mark.parametrize(
    ("body", "status_code", "field"),
    [
        ({}, 422, "role"),
        ({"role": "root"}, 422, "role"),
        ({"role": "service"}, 422, "role"),
        ({"role": "client", "tenant": "acme"}, 403, "tenant"),
        ({"role": "client", "name": "x" * 101}, 422, "name"),
        ({"role": "client", "valid_seconds": -1}, 422, "valid_seconds"),
        ({"role": "client", "limits": {"burst": 2_000_000}}, 422, "limits.burst"),
        ({"role": "client", "secret": "mine"}, 422, "secret"),
    ],
)
async def test_a_key_that_cannot_be_made_is_refused_by_name(
    gateway: GatewayUnderTest, body: dict[str, Any], status_code: int, field: str
) -> None:
    reply = await gateway.client.post(KEYS_PATH, json=body)
    assert (reply.status_code, reply.json()["error"]["field"]) == (status_code, field)


async def test_pages_of_keys_are_walked_to_the_end(gateway: GatewayUnderTest) -> None:
    made = {(await make(gateway))["key"]["id"] for _ in range(5)}
    ids: list[str] = []
    token = ""
    while True:
        response = (await gateway.client.get(KEYS_PATH, params={"page_size": 2, "page_token": token})).json()
        assert len(response["keys"]) <= 2
        ids += [one["id"] for one in response["keys"]]
        token = response["next_page_token"]
        if not token:
            break
    assert len(ids) == len(set(ids)) == 7
    assert made < set(ids)


def files_below(folder: Path, holding: bytes = b"") -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and holding in path.read_bytes()]


async def test_a_secret_stands_in_no_log_no_trace_and_no_file(gateway: GatewayUnderTest) -> None:
    logged: list[str] = []
    listener = logging.Handler()
    listener.emit = lambda record: logged.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(listener)
    try:
        made = await make(gateway, name="quiet")
        await gateway.client.get("/openapi.json", headers=bearer(made["secret"]))
        await gateway.client.get("/nothing", headers=bearer(made["secret"]))
    finally:
        logger.removeHandler(listener)
    response = "\n".join(logged) + "\n".join(span.to_json() for span in gateway.spans.get_finished_spans())
    assert f"made the key {made['key']['id']}" in response
    secret = made["secret"].split("_")[2]
    assert secret not in response
    assert KEYRING_FILE in files_below(gateway.home)
    assert not files_below(gateway.home, holding=secret.encode())
    spans = [span for span in gateway.spans.get_finished_spans() if span.name == "POST /api/v1/keys"]
    assert str((spans[0].attributes or {})["millrace.actor"]).startswith("admin:")
