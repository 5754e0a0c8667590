"""Uploading a data set: what is refused on the way, what is kept, and what a key means."""

import gzip
import hashlib
import random
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.errors import BadField, Malformed, MillraceError
from services.gateway.domain.requests import Caller
from services.gateway.domain.uploads import NewContent, TextCheck, Uploaded, check_content_hash, check_upload
from services.gateway.errors import BodyTooLarge, EmptyUpload, NotText, WrongContent
from services.gateway.handlers import upload_dataset
from services.gateway.inbound.http.uploads import _decoded
from services.gateway.ports import Policy
from services.kit.core.idempotency import KeyReused
from tests.unit.gateway.fakes import GatewayFleet

CONTENT = '{"text": "Grüße aus dem All", "label": "a"}\n'.encode() * 40
HASH = hashlib.sha256(CONTENT).hexdigest()


async def parts(content: bytes, *cuts: int) -> AsyncIterator[bytes]:
    for start, end in zip((0, *cuts), (*cuts, len(content)), strict=True):
        yield content[start:end]


async def upload(
    fleet: GatewayFleet, content: bytes = CONTENT, *, caller: Caller | None = None, **header: object
) -> Uploaded:
    reported: list[int] = []

    async def report(received: int) -> None:
        reported.append(received)

    announced = NewContent(**{"dataset": "texts", "format": "jsonl", **header})  # type: ignore[arg-type]
    done = await upload_dataset(announced, parts(content, 7, 500), caller or Caller("acme"), fleet.ports, report)
    assert reported == [7, 500, len(content)]
    return done


async def test_a_content_is_stored_under_its_tenant_its_data_set_and_its_hash() -> None:
    fleet = GatewayFleet()
    done = await upload(fleet, size_bytes=len(CONTENT), sha256=HASH)
    assert done.uri == f"fake://acme/texts/{HASH}.jsonl"
    assert (done.content.sha256, done.content.size_bytes, done.already_there) == (HASH, len(CONTENT), False)
    assert fleet.uploads.stored == {done.uri: CONTENT}
    assert (await upload(fleet)).already_there


@pytest.mark.parametrize(
    ("header", "error", "field"),
    [
        ({"dataset": "../texts"}, Malformed, "dataset"),
        ({"dataset": "te\x00xts"}, Malformed, "dataset"),
        ({"dataset": ""}, Malformed, "dataset"),
        ({"format": "parquet"}, BadField, "format"),
        ({"format": "../jsonl"}, BadField, "format"),
        ({"sha256": HASH.upper()}, BadField, "sha256"),
        ({"sha256": HASH[:-1]}, BadField, "sha256"),
        ({"size_bytes": 2**31}, BodyTooLarge, "size_bytes"),
    ],
)
async def test_a_bad_header_is_refused_before_anything_is_read(
    header: dict[str, object], error: type[MillraceError], field: str
) -> None:
    announced = NewContent(**{"dataset": "texts", "format": "jsonl", **header})  # type: ignore[arg-type]
    with pytest.raises(error) as refused:
        check_upload(announced, limit_bytes=1_000_000)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("header", "field"), [({"size_bytes": 5}, "size_bytes"), ({"sha256": "0" * 64}, "sha256")], ids=["size", "hash"]
)
async def test_a_content_that_is_not_the_announced_one_is_refused_and_not_stored(
    header: dict[str, Any], field: str
) -> None:
    fleet = GatewayFleet()
    with pytest.raises(WrongContent) as refused:
        await upload(fleet, **header)
    assert refused.value.field == field
    assert fleet.uploads.stored == {}


async def test_an_empty_content_and_one_past_the_limit_are_refused() -> None:
    async def nothing() -> AsyncIterator[bytes]:
        for part in (b"", b""):
            yield part

    async def report(_: int) -> None: ...

    fleet = GatewayFleet(policy=Policy(upload_limit_bytes=100))
    with pytest.raises(EmptyUpload):
        await upload_dataset(NewContent("texts", "csv"), nothing(), Caller("acme"), fleet.ports, report)
    with pytest.raises(BodyTooLarge):
        await upload_dataset(NewContent("texts", "csv"), parts(CONTENT), Caller("acme"), fleet.ports, report)
    assert fleet.uploads.stored == {}


async def test_a_key_stands_for_one_content() -> None:
    fleet, caller = GatewayFleet(), Caller("acme", "key")
    first = await upload(fleet, caller=caller)
    assert (await upload(fleet, caller=caller)).uri == first.uri
    with pytest.raises(KeyReused):
        await upload(fleet, CONTENT + CONTENT, caller=caller)
    with pytest.raises(KeyReused):
        await upload(fleet, caller=caller, dataset="others")
    assert list(fleet.uploads.stored) == [first.uri]


@given(text=st.text(min_size=1), seed=st.integers(0, 99))
def test_text_is_text_however_it_is_cut(text: str, seed: int) -> None:
    content, check = text.replace("\0", " ").encode(), TextCheck(10_000)
    dice = random.Random(seed)
    while content:
        offset = dice.randint(1, len(content))
        check.take(content[:offset])
        content = content[offset:]
    check.end()


@given(
    good=st.text(max_size=30),
    offset=st.integers(0, 200),
    bad=st.sampled_from([b"\xff", b"\0", b"\xc3(", b"\xed\xa0\x80"]),
)
def test_the_first_byte_that_is_no_text_is_named(good: str, offset: int, bad: bytes) -> None:
    before = good.replace("\0", " ").encode()
    content, check = before + bad + b" more", TextCheck(10_000)

    def take() -> None:
        for part in (content[:offset], content[offset:]):
            check.take(part)

    with pytest.raises(NotText) as refused:
        take()
    assert refused.value.details["index"] == len(before)


def test_a_character_that_is_cut_short_is_no_text() -> None:
    check = TextCheck(100)
    check.take("ü".encode()[:1])
    with pytest.raises(NotText):
        check.end()


@pytest.mark.parametrize("text", ["", "abc", "g" * 8, "a" * 65, "A" * 8, "abcdefa\n", "../../.."])
def test_a_content_hash_has_at_least_eight_digits(text: str) -> None:
    check_content_hash("0123abcd", "content_hash")
    with pytest.raises(Malformed):
        check_content_hash(text, "content_hash")


async def inflated(packed: bytes, *cuts: int) -> list[bytes]:
    return [piece async for piece in _decoded(parts(packed, *cuts), {b"content-encoding": "gzip"})]


async def test_gzip_comes_in_bounded_pieces_also_when_it_is_several_files() -> None:
    packed = gzip.compress(b"a" * 3_000_000) + gzip.compress(b"b")
    pieces = await inflated(packed, 5, 30)
    assert b"".join(pieces) == b"a" * 3_000_000 + b"b"
    assert max(map(len, pieces)) <= 256 * 1024


async def test_deflate_is_inflated_too() -> None:
    chunks = _decoded(parts(zlib.compress(b"abc")), {b"content-encoding": "deflate"})
    assert [piece async for piece in chunks] == [b"abc"]


PACKED = gzip.compress(b"abc", mtime=0)
"""Without the time of day: it would be in the names of the tests, which every worker must give alike."""


@pytest.mark.parametrize("packed", [b"plain", PACKED[:-3], PACKED + b"\0\0\0"])
async def test_what_is_no_complete_gzip_is_refused(packed: bytes) -> None:
    with pytest.raises(Malformed):
        await inflated(packed, 2)
