"""Uploading a data set through both doors: what is kept, what is told on the way, and what is refused."""

import asyncio
import gzip
import hashlib
import io
import json
import zipfile
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import grpc
import httpx
import pytest

from services.contracts.access import METHOD_ROLES, KeyRole
from services.contracts.rpc import gateway_pb2, gateway_pb2_grpc
from tests.integration.gateway.gateway import GatewayUnderTest, open_gateway, until
from tests.integration.gateway.test_bad_input import CLIMBING, _raw, error_of

PATH: Final = "/api/v1/datasets/texts/content"
CONTENT: Final = b'{"text": "old iron", "label": "metal"}\n' * 5_000
HASH: Final = hashlib.sha256(CONTENT).hexdigest()
ANNOUNCED: Final[dict[str, Any]] = {"dataset": "texts", "uri": "file:///u/texts.jsonl", "model": "news"}
NDJSON: Final = {"content-type": "application/x-ndjson"}


def zipped() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(zipfile.ZipInfo("texts.jsonl"), CONTENT)
    return packed.getvalue()


def stored(gateway: GatewayUnderTest) -> list[str]:
    root = gateway.home / "uploads"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def file_of(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path))


async def pieces(content: bytes = CONTENT, size: int = 10_000, pause: float = 0.0) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        await asyncio.sleep(pause)
        yield content[start : start + size]


# --- REST --------------------------------------------------------------------------------------


async def test_a_body_of_unknown_length_is_stored_under_its_hash(gateway: GatewayUnderTest) -> None:
    reply = await gateway.client.post(PATH, content=pieces(), headers=NDJSON)
    assert reply.status_code == 201, reply.text
    response = reply.json()
    assert file_of(response.pop("uri")).read_bytes() == CONTENT
    assert response == {
        "dataset": "texts", "format": "jsonl", "content_hash": HASH, "size_bytes": len(CONTENT), "already_there": False,
    }  # fmt: skip
    again = await gateway.client.post(f"{PATH}?sha256={HASH}&size_bytes={len(CONTENT)}", content=CONTENT)
    assert again.json()["already_there"] is True
    assert stored(gateway) == [f"default/texts/{HASH}.jsonl"]


async def test_the_media_type_or_the_query_names_the_format(gateway: GatewayUnderTest) -> None:
    for query, media, form in (
        ("", "text/csv; charset=utf-8", "csv"),
        ("?format=csv", "application/octet-stream", "csv"),
        ("?format=csv", "text/csv", "csv"),
        ("", "application/octet-stream", "jsonl"),
        ("?format=jsonl", "application/jsonl", "jsonl"),
    ):
        reply = await gateway.client.post(PATH + query, content=b"text,label\n", headers={"content-type": media})
        assert (reply.status_code, reply.json()["format"]) == (201, form)
    for query, media in (("?format=jsonl", "text/csv"), ("", "application/json"), ("", "application/x-pickle")):
        reply = await gateway.client.post(PATH + query, content=b"x", headers={"content-type": media})
        assert (reply.status_code, error_of(reply)["field"]) == (415, "content-type")


async def test_a_body_in_gzip_is_stored_inflated_and_a_bomb_is_not(tmp_path: Path, embedded_bootstrap: str) -> None:
    async with open_gateway(tmp_path, embedded_bootstrap, upload_limit_bytes=1_000_000) as gateway:
        packed = NDJSON | {"content-encoding": "gzip"}
        fine = await gateway.client.post(PATH, content=gzip.compress(CONTENT), headers=packed)
        assert fine.json()["content_hash"] == HASH
        bomb = await gateway.client.post(PATH, content=gzip.compress(b" " * 300_000_000, 9), headers=packed)
        assert (bomb.status_code, error_of(bomb)["code"]) == (413, "body_too_large")
        for broken in (gzip.compress(CONTENT)[:-9], b"\x1f\x8b", b"plain"):
            reply = await gateway.client.post(PATH, content=broken, headers=packed)
            assert (reply.status_code, error_of(reply)["field"]) == (400, "body")
        other = await gateway.client.post(PATH, content=CONTENT, headers=NDJSON | {"content-encoding": "br"})
        assert (other.status_code, error_of(other)["field"]) == (415, "content-encoding")
        assert stored(gateway) == [f"default/texts/{HASH}.jsonl"]


async def test_a_body_past_the_limit_is_refused_by_its_length_or_when_it_gets_there(
    tmp_path: Path, embedded_bootstrap: str
) -> None:
    async with open_gateway(tmp_path, embedded_bootstrap, upload_limit_bytes=100_000) as gateway:
        for content in (CONTENT, pieces()):
            reply = await gateway.client.post(PATH, content=content, headers=NDJSON)
            assert (reply.status_code, error_of(reply)["code"]) == (413, "body_too_large")
        status, _ = await _raw(gateway, "POST", PATH, extra="content-length: 99999999999\r\n")
        assert status == 413
        assert stored(gateway) == []


async def test_progress_comes_as_lines_to_who_accepts_them(gateway: GatewayUnderTest) -> None:
    headers = NDJSON | {"accept": "application/x-ndjson"}
    reply = await gateway.client.post(PATH, content=pieces(pause=0.06), headers=headers)
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/x-ndjson")
    lines = [json.loads(line) for line in reply.text.splitlines()]
    counts = [line["progress"]["received_bytes"] for line in lines[:-1]]
    assert counts == sorted(counts)
    assert 1 <= len(counts) <= 4
    assert lines[-1]["uploaded"]["content_hash"] == HASH
    broken = await gateway.client.post(PATH, content=pieces(CONTENT + b"\xff", pause=0.06), headers=headers)
    assert json.loads(broken.text.splitlines()[-1])["error"]["code"] == "not_text"
    at_once = await gateway.client.post(PATH, content=b"\xff", headers=headers)
    assert (at_once.status_code, error_of(at_once)["code"]) == (422, "not_text")


BAD_UPLOADS: Final[list[tuple[str, bytes, int, str, str]]] = [
    ("", b"", 422, "empty_upload", "body"),
    ("?format=parquet", b"PAR1", 422, "bad_field", "format"),
    ("?format=../jsonl", b"x", 422, "bad_field", "format"),
    ("?sha256=abc", b"x", 422, "bad_field", "sha256"),
    (f"?sha256={'0' * 64}", CONTENT, 422, "wrong_content", "sha256"),
    ("?size_bytes=4", b"five!", 422, "wrong_content", "size_bytes"),
    ("?size_bytes=6", b"five!", 422, "wrong_content", "size_bytes"),
    ("?size_bytes=-1", b"x", 422, "bad_field", "size_bytes"),
    ("?size_bytes=4294967295", b"x", 413, "body_too_large", "size_bytes"),
    ("?dataset=others", b"x", 422, "bad_field", "dataset"),
    ("?owner=me", b"x", 422, "bad_field", "owner"),
    ("", gzip.compress(CONTENT, mtime=0), 422, "not_text", "body"),
    ("", "text".encode("utf-16"), 422, "not_text", "body"),
    ("", zipped(), 422, "not_text", "body"),
    ("", b"\x80\x04\x95\x10pickle", 422, "not_text", "body"),
    ("", CONTENT + b"\x00", 422, "not_text", "body"),
    ("", CONTENT + "ü".encode()[:1], 422, "not_text", "body"),
]


async def test_a_bad_upload_names_its_field_and_leaves_nothing(gateway: GatewayUnderTest) -> None:
    for query, content, status, code, field in BAD_UPLOADS:
        reply = await gateway.client.post(PATH + query, content=content)
        error = error_of(reply)
        assert (reply.status_code, error["code"], error["field"]) == (status, code, field), (query, content[:20])
    for name in CLIMBING:
        status, body = await _raw(gateway, "POST", f"/api/v1/datasets/{name}/content", extra="content-length: 0\r\n")
        assert status == 400, (name, body)
    assert stored(gateway) == []


async def test_a_client_that_is_still_sending_hears_why_it_was_refused(gateway: GatewayUnderTest) -> None:
    for query, content in (("?format=parquet", CONTENT * 150), ("", b"\xff" + CONTENT * 150)):
        reply = await gateway.client.post(PATH + query, content=content)
        assert (reply.status_code, reply.headers["connection"]) == (422, "close")
        assert error_of(reply)["code"] in ("bad_field", "not_text")
    extra = "expect: 100-continue\r\ncontent-length: 30000000\r\n"
    for query, status_line in (
        ("?format=parquet", (b"HTTP/1.1 422", b"bad_field")),
        ("", (b"HTTP/1.1 100", b"not_text")),
    ):
        _, answer = await _raw(gateway, "POST", PATH + query, extra=extra, body=b"\xff" * 100_000)
        assert answer.startswith(status_line[0])
        assert status_line[1] in answer
    assert stored(gateway) == []


async def test_an_upload_that_pauses_too_long_or_takes_too_long_is_408(tmp_path: Path, embedded_bootstrap: str) -> None:
    for name, knobs, code in (
        ("a", {"upload_chunk_seconds": 0.2}, b"stalled_upload"),
        ("b", {"upload_seconds": 0.2}, b"slow_body"),
    ):
        async with open_gateway(tmp_path / name, embedded_bootstrap, **knobs) as gateway:
            status, status_line = await _raw(gateway, "POST", PATH, extra="content-length: 100\r\n", body=b"half of it")
            assert (status, code in status_line) == (408, True)
            assert stored(gateway) == []


async def test_a_client_that_leaves_in_the_middle_leaves_nothing(gateway: GatewayUnderTest) -> None:
    host, _, port = gateway.rest.partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {PATH} HTTP/1.1\r\nhost: {gateway.rest}\r\ncontent-length: {len(CONTENT)}\r\n"
    writer.write(f"{head}authorization: {gateway.metadata[0][1]}\r\n\r\n".encode() + CONTENT[:-1])
    await until(lambda: stored(gateway) != [], "the upload is under way")
    writer.close()
    await until(lambda: stored(gateway) == [], "nothing is left of it")


async def test_more_uploads_than_the_limit_are_429(tmp_path: Path, embedded_bootstrap: str) -> None:
    async with open_gateway(tmp_path, embedded_bootstrap, upload_limit=1) as gateway:
        slow = asyncio.create_task(gateway.client.post(PATH, content=pieces(pause=0.05), headers=NDJSON))
        await until(lambda: stored(gateway) != [], "the first one is under way")
        reply = await gateway.client.post(PATH, content=CONTENT)
        assert (reply.status_code, error_of(reply)["code"]) == (429, "too_many_uploads")
        assert int(reply.headers["retry-after"]) >= 1
        assert (await slow).status_code == 201


async def test_a_full_store_is_507_and_one_that_does_not_answer_503(
    tmp_path: Path, embedded_bootstrap: str, full_store: str
) -> None:
    for name, store, status, code in (
        ("a", full_store, 507, "store_full"),
        ("b", "file:///dev/null", 503, "upload_store_down"),
    ):
        async with open_gateway(tmp_path / name, embedded_bootstrap, MILLRACE_UPLOAD_STORE=store) as gateway:
            reply = await gateway.client.post(PATH, content=CONTENT)
            assert (reply.status_code, error_of(reply)["code"]) == (status, code)
            assert ("retry-after" in reply.headers) == (status == 503)


async def test_one_key_stands_for_one_content_by_either_transport(gateway: GatewayUnderTest) -> None:
    key = {"idempotency-key": "key-1"}
    first = await gateway.client.post(PATH, content=CONTENT, headers=key)
    by_grpc = await upload(gateway, {"dataset": "texts"}, [CONTENT], more=(("idempotency-key", "key-1"),))
    assert by_grpc[-1].uploaded.uri == first.json()["uri"]
    other = await gateway.client.post(PATH, content=CONTENT * 2, headers=key)
    assert (other.status_code, error_of(other)["code"]) == (422, "key_reused")
    assert stored(gateway) == [f"default/texts/{HASH}.jsonl"]


async def test_bad_requests_about_versions_and_runs_name_their_field(gateway: GatewayUnderTest) -> None:
    for verb, path, body, status, field in (
        ("GET", "/api/v1/datasets/texts/versions/abc", None, 400, "content_hash"),
        ("GET", f"/api/v1/datasets/texts/versions/{'A' * 64}", None, 400, "content_hash"),
        ("GET", f"/api/v1/datasets/texts/versions/{'a' * 65}", None, 400, "content_hash"),
        ("GET", "/api/v1/datasets/texts/versions/%2e%2e", None, 400, "path"),
        ("GET", "/api/v1/datasets/texts/versions?since=x", None, 422, "since"),
        ("GET", "/api/v1/runs?since=yesterday", None, 422, "since"),
        ("GET", "/api/v1/runs?since=2026-01-01T00:00:00", None, 422, "since"),
        ("POST", "/api/v1/runs", {}, 422, "dataset"),
        ("POST", "/api/v1/runs", {"dataset": "a\0b"}, 400, "dataset"),
        ("POST", "/api/v1/runs", {"dataset": "texts", "hold_back": 1}, 422, "hold_back"),
        ("POST", "/api/v1/runs", {"dataset": "texts", "actor": "me"}, 422, "actor"),
        ("POST", "/api/v1/datasets", ANNOUNCED | {"content_hash": "abc"}, 422, "content_hash"),
        ("POST", "/api/v1/datasets", ANNOUNCED | {"content_hash": HASH.upper()}, 422, "content_hash"),
        ("POST", "/api/v1/datasets", ANNOUNCED | {"content_hash": 5}, 422, "content_hash"),
    ):
        reply = await gateway.client.request(verb, path, json=body)
        assert (reply.status_code, error_of(reply)["field"]) == (status, field), (path, body)


# --- gRPC --------------------------------------------------------------------------------------


async def upload(
    gateway: GatewayUnderTest,
    header: dict[str, Any] | None,
    chunks: Iterable[bytes],
    *,
    pause: float = 0.0,
    more: Any = (),
) -> list[gateway_pb2.UploadDatasetResponse]:
    async def requests() -> AsyncIterator[gateway_pb2.UploadDatasetRequest]:
        if header is not None:
            yield gateway_pb2.UploadDatasetRequest(header=gateway_pb2.UploadHeader(**header))
        for chunk in chunks:
            await asyncio.sleep(pause)
            yield gateway_pb2.UploadDatasetRequest(chunk=chunk)

    stub: Any = gateway_pb2_grpc.GatewayServiceStub(gateway.channel)
    return [response async for response in stub.UploadDataset(requests(), metadata=(*gateway.metadata, *more))]


def chunks(content: bytes = CONTENT, size: int = 10_000) -> list[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]


async def test_a_stream_of_chunks_is_stored_and_its_progress_reported(gateway: GatewayUnderTest) -> None:
    header = {"dataset": "texts", "format": "csv", "size_bytes": len(CONTENT), "sha256": HASH}
    response = await upload(gateway, header, chunks(), pause=0.06)
    assert 1 <= len(response[:-1]) < len(chunks())
    assert all(0 < one.progress.received_bytes < len(CONTENT) for one in response[:-1])
    uploaded = response[-1].uploaded
    assert file_of(uploaded.uri).read_bytes() == CONTENT
    assert (uploaded.content_hash, uploaded.size_bytes, uploaded.format) == (HASH, len(CONTENT), "csv")


async def test_a_bad_stream_is_refused_with_its_status_and_leaves_nothing(gateway: GatewayUnderTest) -> None:
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    for header, parts, code in (
        (None, [CONTENT], invalid),
        (None, [], invalid),
        ({"dataset": "../texts"}, [CONTENT], invalid),
        ({"dataset": "te\0xts"}, [CONTENT], invalid),
        ({"dataset": "texts", "format": "pickle"}, [CONTENT], invalid),
        ({"dataset": "texts"}, [], invalid),
        ({"dataset": "texts"}, [b"", b""], invalid),
        ({"dataset": "texts"}, [b"\xff"], invalid),
        ({"dataset": "texts", "size_bytes": 1}, [CONTENT], invalid),
        ({"dataset": "texts", "sha256": "0" * 64}, [CONTENT], invalid),
        ({"dataset": "texts", "size_bytes": 4_294_967_295}, [CONTENT], grpc.StatusCode.RESOURCE_EXHAUSTED),
        ({"dataset": "texts"}, [b"a" * 5_000_000], grpc.StatusCode.RESOURCE_EXHAUSTED),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await upload(gateway, header, parts)
        assert refused.value.code() is code, (header, refused.value.details())
    assert stored(gateway) == []


async def test_a_stream_that_pauses_breaks_off_or_grows_too_long_leaves_nothing(
    tmp_path: Path, embedded_bootstrap: str
) -> None:
    knobs = {"upload_chunk_seconds": 1.0, "upload_limit_bytes": 100_000}
    async with open_gateway(tmp_path, embedded_bootstrap, **knobs) as gateway:
        for parts, pause, code in (
            (chunks()[:2], 2.0, grpc.StatusCode.DEADLINE_EXCEEDED),
            (chunks(), 0.0, grpc.StatusCode.RESOURCE_EXHAUSTED),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await upload(gateway, {"dataset": "texts"}, parts, pause=pause)
            assert refused.value.code() is code
        going = asyncio.create_task(upload(gateway, {"dataset": "texts"}, chunks(), pause=0.1))
        await until(lambda: stored(gateway) != [], "the upload is under way")
        going.cancel()
        await asyncio.gather(going, return_exceptions=True)
        await until(lambda: stored(gateway) == [], "nothing is left of it")


async def test_a_viewer_may_not_upload(gateway: GatewayUnderTest) -> None:
    assert METHOD_ROLES["/millrace.v1.GatewayService/UploadDataset"] is KeyRole.OPERATOR
    async with httpx.AsyncClient(base_url=f"http://{gateway.rest}") as stranger:
        assert (await stranger.post(PATH, content=CONTENT)).status_code == 401
    assert stored(gateway) == []
