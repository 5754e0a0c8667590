"""Dead letters by REST and gRPC, on both brokers: listed, shown and sent again, each tenant's own alone."""

import asyncio
import base64
import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.contracts.errors import Invalid, Unavailable
from services.contracts.events import DatasetReady, Event
from services.contracts.rpc import dead_letters_pb2 as wire
from services.gateway.inbound.grpc_services import DEAD_LETTERS
from services.gateway.outbound import dead_letters as outbound
from services.gateway.outbound.dead_letters import KafkaDeadLetters
from services.kit.core.clock import SystemClock
from services.kit.messaging.dead_letters import DeadLetterQueue
from services.kit.messaging.envelope import Envelope, Message, encode
from services.kit.messaging.producer import EventProducer
from tests.integration.gateway.gateway import GatewayUnderTest, open_gateway

PATH = "/api/v1/dead-letters"
DATASET = DatasetReady(dataset="docs", uri="file:///data/docs.jsonl", model="topics")


class TooBusy(Invalid):
    """It is not taken today."""


@pytest.fixture
async def gateway(tmp_path: Path, bootstrap_servers: str) -> AsyncIterator[GatewayUnderTest]:
    async with open_gateway(tmp_path, bootstrap_servers) as opened:
        yield opened


def message(name: str, tenant: str = "default", event: Event = DATASET) -> Message:
    return encode(Envelope(id=name, event=event, source="test", time=SystemClock().now(), tenant=tenant))


async def give_up(gateway: GatewayUnderTest, *messages: Message) -> None:
    dead_letters = DeadLetterQueue(gateway.writer, SystemClock(), service="trainer")
    for one in messages:
        await dead_letters.send_to_dlq(one, TooBusy(), tries=1)


async def listed(gateway: GatewayUnderTest, **query: Any) -> dict[str, Any]:
    reply = await gateway.client.get(PATH, params=query)
    assert reply.status_code == 200, reply.text
    page: dict[str, Any] = reply.json()
    return page


async def test_letters_are_listed_shown_and_sent_again(gateway: GatewayUnderTest) -> None:
    await give_up(gateway, *(message(f"evt-{number}") for number in range(3)))
    page = await listed(gateway, page_size=2)
    assert ([one["event_id"] for one in page["dead_letters"]], page["total"]) == (["evt-2", "evt-1"], 3)
    second = await listed(gateway, page_size=2, page_token=page["next_page_token"])
    assert ([one["event_id"] for one in second["dead_letters"]], second["next_page_token"]) == (["evt-0"], "")

    name = page["dead_letters"][0]["address"]
    shown = (await gateway.client.get(f"{PATH}/{name}")).json()
    assert DatasetReady.model_validate_json(base64.b64decode(shown["body"])) == DATASET
    assert (shown["headers"]["dlq-code"], shown["dead_letter"]["status"]) == ("too_busy", "waiting")

    reply = await gateway.client.post(f"{PATH}:redeliver", json={"addresses": [name]})
    assert (reply.status_code, reply.json()["sent"]) == (200, 1), reply.text
    again = (await listed(gateway, waiting="true"))["dead_letters"]
    assert [one["event_id"] for one in again] == ["evt-1", "evt-0"]
    rest = (await gateway.client.post(f"{PATH}:redeliver", json={"all": True})).json()
    assert {one["event_id"]: one["skipped"] for one in rest["redeliveries"]} == {
        "evt-0": "",
        "evt-1": "",
        "evt-2": "redelivered_already",
    }
    assert rest["sent"] == 2


async def test_grpc_does_the_same(gateway: GatewayUnderTest) -> None:
    await give_up(gateway, message("evt-1"))
    page = await gateway.rpc_method(DEAD_LETTERS, "ListDeadLetters")(wire.ListDeadLettersRequest(code="too_busy"))
    [dead_letter] = page.dead_letters
    get = gateway.rpc_method(DEAD_LETTERS, "GetDeadLetter")
    topic, partition, offset = dead_letter.address.split("/")
    shown = await get(wire.GetDeadLetterRequest(topic=topic, partition=int(partition), offset=offset))
    assert shown.dead_letter == dead_letter
    redeliver = gateway.rpc_method(DEAD_LETTERS, "RedeliverDeadLetters")
    done = await redeliver(wire.RedeliverDeadLettersRequest(addresses=[dead_letter.address], dry_run=True))
    assert ([one.event_id for one in done.redeliveries], done.sent, done.dry_run) == (["evt-1"], 0, True)


@pytest.mark.parametrize(
    ("verb", "path", "body", "answer"),
    [
        ("GET", "", {"topic": "nonsense"}, (422, "unknown_topic", "topic")),
        ("GET", "", {"since": "yesterday"}, (422, "bad_field", "since")),
        ("GET", "/dataset.ready/0/77", {}, (404, "unknown_dead_letter", "address")),
        ("GET", "/dataset.ready/9/0", {}, (404, "unknown_dead_letter", "address")),
        ("GET", "/dataset.ready/x/0", {}, (400, "malformed", "partition")),
        ("GET", "/dataset.ready/0/-1", {}, (400, "malformed", "offset")),
        ("GET", f"/dataset.ready/0/{'9' * 40}", {}, (400, "malformed", "offset")),
        ("POST", ":redeliver", {}, (422, "nothing_selected", "addresses")),
        (
            "POST",
            ":redeliver",
            {"addresses": ["dataset.ready/0/0"], "all": True},
            (422, "nothing_selected", "addresses"),
        ),
        ("POST", ":redeliver", {"addresses": ["x"] * 201}, (422, "bad_field", "addresses")),
        ("POST", ":redeliver", {"addresses": ["../etc/passwd"]}, (404, "unknown_dead_letter", "address")),
        ("POST", ":redeliver", {"all": True, "corrected_body": "{}"}, (422, "bad_field", "corrected_body")),
    ],
)
async def test_what_cannot_be_done_is_refused_with_its_code_and_field(
    embedded_gateway: GatewayUnderTest, verb: str, path: str, body: dict[str, Any], answer: tuple[int, str, str]
) -> None:
    client = embedded_gateway.client
    reply = await (client.get(PATH + path, params=body) if verb == "GET" else client.post(PATH + path, json=body))
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["field"]) == answer, reply.text


@pytest.fixture
async def embedded_gateway(tmp_path: Path, embedded_bootstrap: str) -> AsyncIterator[GatewayUnderTest]:
    async with open_gateway(tmp_path, embedded_bootstrap) as opened:
        yield opened


async def test_a_page_goes_on_behind_a_letter_that_has_left_the_listing(embedded_gateway: GatewayUnderTest) -> None:
    await give_up(embedded_gateway, message("evt-1"), message("evt-2"))
    page = await listed(embedded_gateway, page_size=1, waiting="true")
    [dead_letter] = page["dead_letters"]
    await embedded_gateway.client.post(f"{PATH}:redeliver", json={"addresses": [dead_letter["address"]]})
    second = await listed(embedded_gateway, page_size=1, waiting="true", page_token=page["next_page_token"])
    assert [one["event_id"] for one in second["dead_letters"]] == ["evt-1"]


async def test_more_records_than_memory_holds_leave_the_newest(embedded_bootstrap: str) -> None:
    writer = EventProducer(embedded_bootstrap, "test")
    dead_letters = DeadLetterQueue(writer, SystemClock())
    for number in range(5):
        await dead_letters.send_to_dlq(message(f"evt-{number}"), TooBusy(), tries=1)
        await asyncio.sleep(0.002)
    scan = await KafkaDeadLetters(embedded_bootstrap, writer, max_records=3).scan(["dataset.ready"], None)
    await writer.close()
    assert ([record.event_id for record in scan.records], scan.not_read) == (["evt-2", "evt-3", "evt-4"], 2)


async def test_a_broker_that_does_not_answer_is_reported_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "READ_SECONDS", 0.3)

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1_000):
            pass
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    async with server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        topics = KafkaDeadLetters(address, EventProducer(address, "test"))
        for _ in range(2):  # the first leaves nothing locked
            with pytest.raises(Unavailable, match="could not be read"):
                await topics.scan(["dataset.ready"], None)
        gc.collect()  # a connection left open would be reported here
        await asyncio.sleep(0.05)  # the server's ends close too
