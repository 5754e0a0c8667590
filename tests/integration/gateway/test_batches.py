"""Batches over files: every row has its line, in order, whoever stops the gateway meanwhile; on both databases."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.contracts.rpc import batches_pb2, inference_pb2, replica_pb2
from services.gateway.inbound.grpc_services import BATCHES
from tests.integration.gateway.gateway import GatewayUnderTest, ReplicaCall, answer_at_once, open_gateway, target
from tests.waiting import LIMIT_SECONDS

BATCHES_PATH = "/api/v1/batches"


@asynccontextmanager
async def serving(
    home: Path, bootstrap: str, database: str, replica: str = "r-1", **knobs: Any
) -> AsyncIterator[GatewayUnderTest]:
    """A gateway whose deployment is served by one replica, and which keeps small parts."""
    settings = {"database_url": database, "batch_part_rows": 8, "batch_texts": 4, "batch_lease_seconds": 1.0, **knobs}
    async with open_gateway(home, bootstrap, **settings) as gateway:
        await gateway.deploy(target(2))
        await gateway.replica(replica, 2)
        await gateway.serves(2)
        yield gateway


def write(home: Path, name: str, content: str | bytes) -> str:
    """A file where batches may read; its address."""
    path = home / "datasets" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path.as_uri()


def rows(count: int) -> str:
    return "".join(json.dumps({"text": f"text {number}"}) + "\n" for number in range(1, count + 1))


def file_at(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


async def create(gateway: GatewayUnderTest, uri: str, key: str = "", **more: Any) -> dict[str, Any]:
    headers = {"idempotency-key": key} if key else {}
    reply = await gateway.client.post(BATCHES_PATH, json={"deployment": "news", "uri": uri, **more}, headers=headers)
    assert reply.status_code == 202, reply.text
    response: dict[str, Any] = reply.json()
    return response


async def ended(gateway: GatewayUnderTest, batch: str) -> dict[str, Any]:
    async with asyncio.timeout(LIMIT_SECONDS):
        while True:
            response: dict[str, Any] = (await gateway.client.get(f"{BATCHES_PATH}/{batch}")).json()
            if response["status"] not in ("queued", "running"):
                return response
            await asyncio.sleep(0.02)


async def output(gateway: GatewayUnderTest, batch: str) -> list[dict[str, Any]]:
    reply = await gateway.client.get(f"{BATCHES_PATH}/{batch}/output")
    assert reply.status_code == 200, reply.text
    return [json.loads(line) for line in reply.text.splitlines()]


async def test_every_row_has_its_line_in_order_and_the_manifest_tells_what_they_are(
    tmp_path: Path, embedded_bootstrap: str, database_url: str
) -> None:
    uri = write(tmp_path, "texts.jsonl", rows(30))
    async with serving(tmp_path, embedded_bootstrap, database_url) as gateway:
        batch = (await create(gateway, uri, with_embeddings=True))["batch"]
        response = await ended(gateway, batch)
        assert (response["status"], response["rows"], response["failed_rows"], response["versions"]) == (
            "succeeded",
            30,
            0,
            [2],
        )
        assert response["progress"] == 1.0
        reply = await gateway.client.get(f"{BATCHES_PATH}/{batch}/output")
        lines = [json.loads(line) for line in reply.text.splitlines()]
        assert [line["row"] for line in lines] == list(range(1, 31))
        assert {(line["label"], line["version"]) for line in lines} == {("dev", 2)}
        assert all(line["embedding"] for line in lines)
        digest = hashlib.sha256(reply.content).hexdigest()
        assert (reply.headers["etag"], response["output_sha256"]) == (f'"{digest}"', digest)
        known = await gateway.client.get(
            f"{BATCHES_PATH}/{batch}/output", headers={"if-none-match": reply.headers["etag"]}
        )
        assert (known.status_code, known.content) == (304, b"")
        manifest = json.loads(file_at(response["manifest_uri"]).read_bytes())
        assert (manifest["rows"], manifest["versions"], manifest["output"]["sha256"]) == (30, [2], digest)
        folder = file_at(response["output_uri"]).parents[1]
        assert len(list(folder.iterdir())) == 1  # the parts are gone


async def test_a_bad_row_is_reported_at_its_index_and_costs_no_other(
    tmp_path: Path, embedded_bootstrap: str, database_url: str
) -> None:
    content = b'{"text": "good"}\n{"text": " "}\nnot json\n\n{"body": "x"}\n{"text": 1.5}\n'
    content += b'{"text": "gr\xf6\xdfe"}\n{"text": "a\\u0000b"}\n{"text": "bad for the model"}\n{"text": "good too"}\n'
    uri = write(tmp_path, "texts.jsonl", content)

    async def picky(request: ReplicaCall) -> replica_pb2.ReplicaEvent:
        if "bad for the model" in request.texts:
            failure = inference_pb2.Failure(kind="too_large", code="text_too_long", message="texts[0] is too long")
            return replica_pb2.ReplicaEvent(id=request.id, failure=failure)
        return await answer_at_once(request)

    async with serving(tmp_path, embedded_bootstrap, database_url) as gateway:
        gateway.replicas[0].behaviours[2] = picky
        batch = (await create(gateway, uri))["batch"]
        response = await ended(gateway, batch)
        assert (response["status"], response["rows"], response["failed_rows"]) == ("succeeded", 9, 7)
        lines = await output(gateway, batch)
        assert [line["row"] for line in lines] == [1, 2, 3, 5, 6, 7, 8, 9, 10]
        codes = {line["row"]: line["error"]["code"] for line in lines if "error" in line}
        assert codes == {
            2: "bad_field",
            3: "bad_row",
            5: "missing_column",
            6: "bad_row",
            7: "not_utf8",
            8: "malformed",
            9: "text_too_long",
        }
        assert lines[-2]["error"]["message"] == "text is too long"


UNREADABLE: Mapping[str, tuple[str, bytes, dict[str, Any], str, int]] = {
    "quotes": ("csv", b'text\nfine\n"x"y\n', {"format": "csv"}, "bad_row", 2),
    "cut": ("jsonl", b'{"text": "a"}\n{"text": "b', {}, "truncated_file", 2),
    "column": ("csv", b"body\nx\n", {"format": "csv"}, "missing_column", 1),
    "too many": ("jsonl", rows(41).encode(), {}, "too_many_rows", 41),
    "no end": ("jsonl", b'{"text": "' + b"x" * 200_000, {}, "text_too_long", 1),
}


async def test_a_file_that_cannot_be_read_on_fails_the_batch_with_its_row(
    tmp_path: Path, embedded_bootstrap: str, database_url: str
) -> None:
    async with serving(tmp_path, embedded_bootstrap, database_url, batch_rows=40, text_limit_chars=1_000) as gateway:
        for name, (form, content, more, code, row) in UNREADABLE.items():
            batch = (await create(gateway, write(tmp_path, f"{name}.{form}", content), **more))["batch"]
            response = await ended(gateway, batch)
            assert (response["status"], response["failure_code"], response["failure_row"]) == ("failed", code, row), (
                name
            )
            refused = await gateway.client.get(f"{BATCHES_PATH}/{batch}/output")
            assert (refused.status_code, refused.json()["error"]["code"]) == (409, "batch_has_no_output")
        assert not list((tmp_path / "results").glob("*/*/part-*"))


async def test_a_gateway_that_stops_in_mid_batch_goes_on_from_its_last_complete_part(
    tmp_path: Path, embedded_bootstrap: str, database_url: str
) -> None:
    uri = write(tmp_path, "texts.jsonl", rows(64))
    seen: list[str] = []
    hold = asyncio.Event()

    async def held(request: ReplicaCall) -> replica_pb2.ReplicaEvent:
        if "text 33" in request.texts:
            await hold.wait()
        seen.extend(request.texts)
        return await answer_at_once(request)

    async with serving(tmp_path, embedded_bootstrap, database_url) as gateway:
        gateway.replicas[0].behaviours[2] = held
        batch = (await create(gateway, uri))["batch"]
        async with asyncio.timeout(LIMIT_SECONDS):
            while (await gateway.client.get(f"{BATCHES_PATH}/{batch}")).json()["rows"] < 32:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    counted = list(seen)
    hold.set()
    async with serving(tmp_path, embedded_bootstrap, database_url, "r-2") as gateway:
        gateway.replicas[0].behaviours[2] = held
        response = await ended(gateway, batch)
        assert (response["status"], response["rows"], response["attempt"]) == ("succeeded", 64, 2)
        assert [line["row"] for line in await output(gateway, batch)] == list(range(1, 65))
        again = set(seen[len(counted) :])
        assert {f"text {number}" for number in range(1, 33)} & again == set()


async def test_an_input_that_changes_under_the_batch_fails_it(
    tmp_path: Path, embedded_bootstrap: str, database_url: str
) -> None:
    uri = write(tmp_path, "texts.jsonl", rows(64))
    hold = asyncio.Event()

    async def held(request: ReplicaCall) -> replica_pb2.ReplicaEvent:
        if "text 33" in request.texts:
            await hold.wait()
        return await answer_at_once(request)

    async with serving(tmp_path, embedded_bootstrap, database_url) as gateway:
        gateway.replicas[0].behaviours[2] = held
        batch = (await create(gateway, uri))["batch"]
        async with asyncio.timeout(LIMIT_SECONDS):
            while (await gateway.client.get(f"{BATCHES_PATH}/{batch}")).json()["rows"] < 32:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    hold.set()
    write(tmp_path, "texts.jsonl", rows(65))
    async with serving(tmp_path, embedded_bootstrap, database_url, "r-2") as gateway:
        assert (await ended(gateway, batch))["failure_code"] == "input_changed"


async def test_a_part_that_was_changed_on_disk_fails_the_batch(
    tmp_path: Path, embedded_bootstrap: str, database_url: str
) -> None:
    uri = write(tmp_path, "texts.jsonl", rows(40))
    hold = asyncio.Event()

    async def held(request: ReplicaCall) -> replica_pb2.ReplicaEvent:
        if "text 33" in request.texts:
            await hold.wait()
        return await answer_at_once(request)

    async with serving(tmp_path, embedded_bootstrap, database_url) as gateway:
        gateway.replicas[0].behaviours[2] = held
        batch = (await create(gateway, uri))["batch"]
        async with asyncio.timeout(LIMIT_SECONDS):
            while (await gateway.client.get(f"{BATCHES_PATH}/{batch}")).json()["rows"] < 32:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        folder = tmp_path / "results" / "default" / batch
        next(folder.glob("part-000002-*.jsonl")).write_text("{}\n")
        hold.set()
        assert (await ended(gateway, batch))["failure_code"] == "results_damaged"


async def test_a_cancelled_batch_stops_and_leaves_nothing(
    tmp_path: Path, embedded_bootstrap: str, database_url: str
) -> None:
    uri = write(tmp_path, "texts.jsonl", rows(400))

    async def slow(request: ReplicaCall) -> replica_pb2.ReplicaEvent:
        await asyncio.sleep(0.05)
        return await answer_at_once(request)

    async with serving(tmp_path, embedded_bootstrap, database_url) as gateway:
        gateway.replicas[0].behaviours[2] = slow
        batch = (await create(gateway, uri))["batch"]
        async with asyncio.timeout(LIMIT_SECONDS):
            while (await gateway.client.get(f"{BATCHES_PATH}/{batch}")).json()["rows"] == 0:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        for _ in range(2):
            reply = await gateway.client.post(
                f"{BATCHES_PATH}/{batch}:cancel", json={"reason": "test"}, headers={"idempotency-key": "once"}
            )
            assert (reply.status_code, reply.json()["status"]) == (200, "cancelled")
        again = await gateway.client.post(f"{BATCHES_PATH}/{batch}:cancel", json={})
        assert (again.status_code, again.json()["error"]["code"]) == (409, "batch_has_ended")
        folder = tmp_path / "results" / "default" / batch
        async with asyncio.timeout(LIMIT_SECONDS):
            await asyncio.sleep(1.5)
            while folder.exists():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        seen = len(gateway.replicas[0].seen)
        await asyncio.sleep(0.3)
        assert len(gateway.replicas[0].seen) == seen


async def test_one_key_makes_one_batch_and_another_tenant_sees_none_of_it(
    tmp_path: Path, embedded_bootstrap: str, database_url: str
) -> None:
    uri = write(tmp_path, "texts.jsonl", rows(3))
    async with serving(tmp_path, embedded_bootstrap, database_url) as gateway:
        first = await create(gateway, uri, key="k-1")
        await ended(gateway, first["batch"])
        (tmp_path / "datasets" / "texts.jsonl").unlink()
        assert (await create(gateway, uri, key="k-1"))["batch"] == first["batch"]
        reused = await gateway.client.post(
            BATCHES_PATH,
            json={"deployment": "news", "uri": uri, "version": 2},
            headers={"idempotency-key": "k-1"},
        )
        assert (reused.status_code, reused.json()["error"]["code"]) == (422, "key_reused")
        listed = (await gateway.client.get(BATCHES_PATH, params={"status": "succeeded"})).json()
        assert [one["batch"] for one in listed["batches"]] == [first["batch"]]
        unknown = await gateway.client.get(f"{BATCHES_PATH}/batch-none")
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "unknown_batch")


async def test_grpc_tells_the_same(tmp_path: Path, embedded_bootstrap: str) -> None:
    uri = write(tmp_path, "texts.csv", "text,other\none,1\n,2\nthree,3\n")
    database = f"sqlite+aiosqlite:///{tmp_path / 'state.db'}"
    async with serving(tmp_path, embedded_bootstrap, database) as gateway:
        create_request = batches_pb2.CreateBatchRequest(deployment="news", uri=uri, format="csv")
        made = await gateway.rpc_method(BATCHES, "CreateBatch")(create_request)
        response = await ended(gateway, made.batch)
        batch = await gateway.rpc_method(BATCHES, "GetBatch")(batches_pb2.GetBatchRequest(batch=made.batch))
        assert (batch.status, batch.rows, batch.failed_rows) == (response["status"], 3, 1)
        stream: Any = gateway.channel.unary_stream(
            "/millrace.v1.BatchService/GetBatchOutput",
            request_serializer=batches_pb2.GetBatchOutputRequest.SerializeToString,
            response_deserializer=batches_pb2.BatchRow.FromString,
        )
        request = batches_pb2.GetBatchOutputRequest(batch=made.batch)
        lines = [line async for line in stream(request, metadata=gateway.metadata)]
        assert [(line.row, line.label, line.error.code) for line in lines] == [
            (1, "dev", ""),
            (2, "", "bad_field"),
            (3, "dev", ""),
        ]


BAD_BATCHES: list[tuple[dict[str, Any], int, str]] = [
    ({"uri": "file:///x"}, 422, "deployment"),
    ({"deployment": "news"}, 422, "uri"),
    ({"deployment": "news", "uri": "/etc/passwd"}, 422, "uri"),
    ({"deployment": "news", "uri": "file:///etc/passwd"}, 422, "uri"),
    ({"deployment": "news", "uri": "file:///proc/self/environ"}, 422, "uri"),
    ({"deployment": "news", "uri": "http://169.254.169.254/latest"}, 422, "uri"),
    ({"deployment": "news", "uri": "file:///a/../etc/passwd"}, 422, "uri"),
    ({"deployment": "news", "uri": "file:///a/%2e%2e/etc/passwd"}, 422, "uri"),
    ({"deployment": "news", "uri": "file:///%ff"}, 422, "uri"),
    ({"deployment": "news", "uri": "file://[::1/x"}, 422, "uri"),
    ({"deployment": "nobody", "uri": "file:///x"}, 404, "deployment"),
    ({"deployment": "Not A Name", "uri": "file:///x"}, 422, "deployment"),
    ({"deployment": "news", "uri": "file:///x", "version": 7}, 404, "version"),
    ({"deployment": "news", "uri": "file:///x", "format": "parquet"}, 422, "format"),
    ({"deployment": "news", "uri": "file:///x", "text_column": "x" * 201}, 422, "text_column"),
    ({"deployment": "news", "uri": "file:///x", "tenant": "other"}, 422, "tenant"),
    ({"deployment": "news", "uri": "file:///x", "with_embeddings": 1}, 422, "with_embeddings"),
]


async def test_a_bad_batch_is_refused_and_names_its_field(tmp_path: Path, embedded_bootstrap: str) -> None:
    database = f"sqlite+aiosqlite:///{tmp_path / 'state.db'}"
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "link.jsonl").symlink_to("/etc/passwd")
    link = (tmp_path / "datasets" / "link.jsonl").as_uri()
    async with serving(tmp_path, embedded_bootstrap, database) as gateway:
        for body, status, field in [*BAD_BATCHES, ({"deployment": "news", "uri": link}, 422, "uri")]:
            reply = await gateway.client.post(BATCHES_PATH, json=body)
            assert (reply.status_code, reply.json()["error"]["field"]) == (status, field), (body, reply.text)
            assert "passwd" not in reply.text
        for path in ("batch%2f..%2fx", "..", "a%00b"):
            assert (await gateway.client.get(f"{BATCHES_PATH}/{path}/output")).status_code in (400, 404)
        assert (await gateway.client.get(BATCHES_PATH, params={"status": "lost"})).status_code == 422


async def test_no_more_batches_than_the_limit_are_open(tmp_path: Path, embedded_bootstrap: str) -> None:
    uri = write(tmp_path, "texts.jsonl", rows(3))
    database = f"sqlite+aiosqlite:///{tmp_path / 'state.db'}"
    hold = asyncio.Event()

    async def held(request: ReplicaCall) -> replica_pb2.ReplicaEvent:
        await hold.wait()
        return await answer_at_once(request)

    async with serving(tmp_path, embedded_bootstrap, database, batch_limit=2) as gateway:
        gateway.replicas[0].behaviours[2] = held
        made = [await create(gateway, uri) for _ in range(2)]
        full = await gateway.client.post(BATCHES_PATH, json={"deployment": "news", "uri": uri})
        assert (full.status_code, full.json()["error"]["code"]) == (429, "too_many_batches")
        assert "retry-after" in full.headers
        hold.set()
        for one in made:
            assert (await ended(gateway, one["batch"]))["status"] == "succeeded"


@pytest.mark.parametrize("waiting", [0, 20])
async def test_a_batch_gives_way_to_those_who_wait(tmp_path: Path, embedded_bootstrap: str, waiting: int) -> None:
    """With so many live requests on the replica the batch gets no turn; when they have ended it goes on."""
    uri = write(tmp_path, "texts.jsonl", rows(3))
    database = f"sqlite+aiosqlite:///{tmp_path / 'state.db'}"
    hold = asyncio.Event()

    async def held(request: ReplicaCall) -> replica_pb2.ReplicaEvent:
        if request.texts[0] == "live":
            await hold.wait()
        return await answer_at_once(request)

    async with serving(tmp_path, embedded_bootstrap, database, batch_yields_at=10) as gateway:
        gateway.replicas[0].behaviours[2] = held
        live = [asyncio.create_task(gateway.classify("live")) for _ in range(waiting)]
        async with asyncio.timeout(LIMIT_SECONDS):
            while sum(one.texts[0] == "live" for one in gateway.replicas[0].seen) < waiting:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        batch = (await create(gateway, uri))["batch"]
        if waiting:
            await asyncio.sleep(1.0)
            assert (await gateway.client.get(f"{BATCHES_PATH}/{batch}")).json()["status"] == "running"
        else:
            assert (await ended(gateway, batch))["status"] == "succeeded"
        hold.set()
        await asyncio.gather(*live)
        assert (await ended(gateway, batch))["status"] == "succeeded"
