"""What is read page by page: versions, and the history by who, what and when; and the chain that it makes."""

from datetime import UTC
from typing import Any

import orjson
from google.protobuf.timestamp_pb2 import Timestamp

from services.contracts.rpc import registry_pb2 as wire
from services.contracts.rpc.common_pb2 import Page
from services.kit.core.hash_chain import GENESIS, entry_hash
from services.registry.handlers import versions
from tests.integration.registry.client import RegistryClient
from tests.unit.registry.scenario import MODEL, trained


async def pages(client: RegistryClient, method: str, request: Any, field: str) -> list[Any]:
    """Every row, page after page."""
    rows: list[Any] = []
    while True:
        answer = await client.call(method, request)
        rows += getattr(answer, field)
        if not answer.next_page_token:
            return rows
        if request.DESCRIPTOR.fields_by_name.get("page"):
            request.page.page_token = answer.next_page_token
        else:
            request.page_token = answer.next_page_token


async def test_versions_are_paged_newest_first_and_chosen_by_the_verdict_of_the_gate(client: RegistryClient) -> None:
    for number in range(1, 6):
        await client.registry.trains(f"run-{number}", macro_f1=0.8 if number % 2 else 0.2, deploy=False)
    request = wire.ListVersionsRequest(model=MODEL, page=Page(page_size=2))
    assert [one.number for one in await pages(client, "ListVersions", request, "versions")] == [5, 4, 3, 2, 1]
    refused = wire.ListVersionsRequest(model=MODEL, status="refused", page=Page(page_size=1))
    assert [one.number for one in await pages(client, "ListVersions", refused, "versions")] == [4, 2]


async def test_history_is_chosen_by_kind_actor_and_time_in_either_order(client: RegistryClient) -> None:
    await client.registry.canary_of_two()
    await client.registry.wait(10)
    timestamp = Timestamp()
    timestamp.FromDatetime(client.registry.clock.now())
    await client.call("StopDeployment", wire.MoveRolloutRequest(deployment=MODEL))
    facts = await pages(client, "ListHistory", wire.ListHistoryRequest(page_size=3), "entries")
    assert [fact.sequence for fact in facts] == list(range(1, len(facts) + 1))
    newest = wire.ListHistoryRequest(page_size=3, newest_first=True)
    assert await pages(client, "ListHistory", newest, "entries") == facts[::-1]
    actor = facts[-1].actor
    chosen = {
        "kind": wire.ListHistoryRequest(kind="version_passed", page_size=2),
        "actor": wire.ListHistoryRequest(actor=actor, page_size=1),
        "since": wire.ListHistoryRequest(since=timestamp, page_size=1, newest_first=True),
        "until": wire.ListHistoryRequest(until=timestamp, page_size=2, stream=f"deployment/{MODEL}"),
    }
    matches = {name: await pages(client, "ListHistory", request, "entries") for name, request in chosen.items()}
    assert matches["kind"] == [fact for fact in facts if fact.kind == "version_passed"]
    assert matches["actor"] == [fact for fact in facts if fact.actor == actor]
    assert len(matches["actor"]) > 1
    assert matches["since"] == [fact for fact in facts if fact.actor == actor][::-1]
    assert matches["until"] == [fact for fact in facts if fact.actor != actor and fact.stream == f"deployment/{MODEL}"]


async def test_paging_shows_every_fact_once_while_facts_are_added(client: RegistryClient) -> None:
    await client.registry.canary_of_two()
    request = wire.ListHistoryRequest(page_size=4, newest_first=True)
    first = await client.call("ListHistory", request)
    await client.registry.trains("run-9", macro_f1=0.2)
    request.page_token = first.next_page_token
    rest = await pages(client, "ListHistory", request, "entries")
    newest = first.entries[0].sequence
    assert [one.sequence for one in [*first.entries, *rest]] == list(range(newest, 0, -1))


async def test_a_token_of_other_filters_is_refused(client: RegistryClient) -> None:
    await client.registry.canary_of_two()
    first = await client.call("ListHistory", wire.ListHistoryRequest(page_size=1))
    other = wire.ListHistoryRequest(page_size=1, kind="version_passed", page_token=first.next_page_token)
    assert (await client.refused(client.call("ListHistory", other)))[1] == "bad_page_token"


async def test_the_chain_can_be_recomputed_from_what_is_listed_up_to_the_head(client: RegistryClient) -> None:
    empty = await client.call("GetHistoryHead", wire.GetHistoryHeadRequest())
    assert (empty.sequence, empty.hash) == (0, GENESIS)
    await client.registry.canary_of_two()
    facts = await pages(client, "ListHistory", wire.ListHistoryRequest(page_size=3), "entries")
    previous = GENESIS
    for fact in facts:
        published = {name: getattr(fact, name) for name in ("tenant", "stream", "kind", "actor", "reason")}
        published |= {"payload": orjson.loads(fact.detail_json), "at": fact.at.ToDatetime(UTC)}
        assert (fact.previous_hash, fact.hash) == (previous, entry_hash(previous, fact.sequence, published))
        previous = fact.hash
    head = await client.call("GetHistoryHead", wire.GetHistoryHeadRequest())
    assert (head.sequence, head.hash) == (len(facts), previous)


async def test_the_lineage_of_a_time_does_not_know_what_came_later(client: RegistryClient) -> None:
    await client.registry.serving_one()
    before = Timestamp()
    before.FromDatetime(client.registry.clock.now())
    await client.registry.wait(60)
    await client.registry.trains("run-2", against=1, deploy=True)
    await client.call("StopDeployment", wire.MoveRolloutRequest(deployment=MODEL))
    now = await client.call("GetLineage", wire.GetLineageRequest(model=MODEL, version="1"))
    then = await client.call("GetLineage", wire.GetLineageRequest(model=MODEL, version="@champion", as_of=before))
    assert (then.version, now.version) == (1, 1)
    periods = {published: [dict(node.facts) for node in graph.nodes if node.kind == "deployment"]
               for published, graph in (("now", now), ("then", then))}  # fmt: skip
    assert [bool(period["until"]) for period in periods["then"]] == [False]
    assert [bool(period["until"]) for period in periods["now"]] == [True]
    assert {edge.relation for edge in now.edges} >= {"read_by", "produced", "judged_by", "rolled_out", "served"}


async def test_of_other_tenants_the_chain_tells_numbers_and_hashes_and_nothing_else(client: RegistryClient) -> None:
    await client.registry.serving_one()
    theirs = client.registry.envelope(trained("run-9", deploy=False), tenant="acme")
    await versions.register_version(theirs, client.registry.ports)
    await client.registry.trains("run-2", against=1, deploy=False)
    request = wire.ListHistoryRequest(page_size=3, whole_chain=True)
    chain = await pages(client, "ListHistory", request, "entries")
    assert [fact.sequence for fact in chain] == list(range(1, len(chain) + 1))
    assert [fact.previous_hash for fact in chain] == [GENESIS, *(fact.hash for fact in chain[:-1])]
    links = [fact for fact in chain if not fact.kind]
    assert len(links) == 2
    assert {(fact.tenant, fact.stream, fact.actor, fact.reason, fact.detail_json) for fact in links} == {("",) * 5}
    assert not any(fact.HasField("at") for fact in links)
    filtered = wire.ListHistoryRequest(whole_chain=True, actor="trainer")
    assert (await client.refused(client.call("ListHistory", filtered)))[1] == "chain_is_intact"
