"""What the gateway answers is what `openapi.json` says: status, media type, shape; for each example of a request."""

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest

from services.contracts.events import Role
from services.gateway.inbound.http.api import document
from tests.integration.gateway.gateway import GatewayUnderTest, open_gateway, target

DOCUMENT: Final = document()
LONG: Final = "/api/v1/runs/{run}/logs"


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for verb, operation in item.items():
            yield verb.upper(), path, operation


def resolved(part: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in part:
        return part
    node: Any = DOCUMENT
    for name in part["$ref"].removeprefix("#/").split("/"):
        node = node[name]
    example: dict[str, Any] = node
    return example


def example(parameter: dict[str, Any]) -> str:
    return str(parameter["example"] if "example" in parameter else parameter["schema"]["examples"][0])


def requests(verb: str, path: str, operation: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """The operation with each example of its body: about `news`, which is served, and about what nobody knows."""
    examples = {part["name"]: example(part) for part in operation["parameters"] if part["in"] == "path"}
    media = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    named = [one["value"] for one in media.get("examples", {}).values()]
    bodies = named or resolved(media.get("schema", {})).get("examples") or [media.get("example")]
    for known in (True, False):
        names = examples | ({"deployment": "news", "model": "news"} if known else {})
        for body in bodies:
            sent = {**body, "model": "news"} if known and body and "input" in body else body
            yield verb, re.sub(r"{(\w+)}", lambda hit: names[hit[1]], path), sent  # noqa: B023 - used at once


def check(reply: Any, operation: dict[str, Any], where: str) -> None:
    assert str(reply.status_code) in operation["responses"], (where, reply.status_code, reply.text[:300])
    answer = resolved(operation["responses"][str(reply.status_code)])
    kind = reply.headers["content-type"].partition(";")[0]
    assert kind in answer["content"], (where, kind)
    if kind == "application/json":
        schema = {**answer["content"][kind]["schema"], "components": DOCUMENT["components"]}
        jsonschema.Draft202012Validator(schema).validate(reply.json())


@pytest.fixture
async def brief(tmp_path: Path, embedded_bootstrap: str) -> AsyncIterator[GatewayUnderTest]:
    """A gateway that waits for nothing longer than two seconds, and serves `news`."""
    async with open_gateway(tmp_path, embedded_bootstrap, request_seconds=2.0) as opened:
        await opened.replica("replica-1", 1)
        await opened.deploy(target(1), target(2, Role.CANARY, 0))
        await opened.serves(1)
        yield opened


async def test_every_answer_to_a_documented_request_is_documented(brief: GatewayUnderTest) -> None:
    seen: dict[str, set[int]] = {}
    for verb, path, operation in operations():
        if path == LONG:
            continue  # its stand-in breaks off; test_control has it
        for sent_verb, sent_path, body in requests(verb, path, {"parameters": [], **operation}):
            reply = await brief.client.request(sent_verb, sent_path, json=body)
            check(reply, operation, f"{verb} {path}")
            seen.setdefault(path, set()).add(reply.status_code)
    assert seen["/v1/embeddings"] == {200, 400, 404}  # the stand-in has three dimensions, the example asks for 128
    assert seen["/v2/models/{model}/infer"] == {200, 404}
    assert seen["/api/v1/deployments/{deployment}/classify"] == {200, 404}
    assert seen["/api/v1/datasets"] >= {202}


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"headers": {"authorization": "Bearer no"}}, 401),
        ({"headers": {"host": "evil.example"}}, 403),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400),
        ({"content": b"{}", "headers": {"content-type": "text/csv"}}, 415),
        ({"content": b"x" * 9_000_000, "headers": {"content-type": "application/json"}}, 413),
    ],
)
async def test_what_any_json_may_be_refused_for_is_documented(
    gateway: GatewayUnderTest, changes: Any, status: int
) -> None:
    for verb, path, operation in operations():
        if "application/json" in operation.get("requestBody", {}).get("content", {}):
            named = re.sub(r"{(\w+)}", "news", path)
            reply = await gateway.client.request(verb, named, **changes)
            assert reply.status_code == status, (path, reply.text[:200])
            check(reply, operation, f"{verb} {path}")
