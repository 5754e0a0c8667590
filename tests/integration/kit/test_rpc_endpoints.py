"""The gRPC door on loopback: keys, errors, spans, health and reflection."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from services.contracts.errors import Kind, MillraceError, NotFound, Overloaded, Relayed, TooLarge, Unsupported
from services.contracts.rpc import registry_pb2 as wire
from services.contracts.rpc import registry_pb2_grpc
from services.kit.core.clock import SystemClock
from services.kit.identity.auth import API_KEY_FILE, SERVICE_KEY_FILE, Keyring, ensure_keys, read_key
from services.kit.transport.grpc_requests import caller
from services.kit.transport.http import PortTaken
from services.kit.transport.rpc import RpcServer, channel, metadata, refusal_from
from tests.unit.kit.spans import Spans, trace_of

SERVICE = "millrace.v1.RegistryService"
FACTS: dict[str, Any] = {"problem": "p", "what": "it", "limit": "1", "queued": 3, "seconds": 2}
BY_KIND = {
    cls.kind.value: cls
    for cls in MillraceError.__subclasses__()
    if cls.__module__ == MillraceError.__module__ and cls is not Relayed
}
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Stub(registry_pb2_grpc.RegistryServiceServicer):
    """Refuses with the kind that the model's name says."""

    async def GetModel(self, request: wire.GetModelRequest, context: Any) -> wire.Model:  # noqa: N802
        if request.model == "crash":
            raise RuntimeError("secret: /etc/path")
        if request.model == "whose":
            return wire.Model(name=caller().tenant)
        if request.model in BY_KIND:
            raise BY_KIND[request.model](field="model", hint="do this", retry_after_seconds=7.5, **FACTS)
        return wire.Model(name=request.model)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    ensure_keys(tmp_path)
    return tmp_path


@pytest.fixture
async def server(keys: Path) -> AsyncIterator[RpcServer]:
    made = RpcServer(Keyring(keys, SystemClock()), "127.0.0.1", 0)
    stub: Any = Stub  # the generated base is abstract in its stubs only
    made.add(registry_pb2_grpc.add_RegistryServiceServicer_to_server, stub(), SERVICE)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def link(server: RpcServer) -> AsyncIterator[grpc.aio.Channel]:
    async with channel(server.address) as opened:
        yield opened


async def error(link: grpc.aio.Channel, keys: Path, model: str) -> MillraceError:
    stub = registry_pb2_grpc.RegistryServiceStub(link)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.GetModel(wire.GetModelRequest(model=model), metadata=metadata(read_key(keys)))
    return refusal_from(error.value)


def raw(link: grpc.aio.Channel, path: str) -> Any:
    """The method, for bytes as they are."""
    return link.unary_unary(path)


def methods() -> Iterator[str]:
    service = wire.DESCRIPTOR.services_by_name["RegistryService"]
    yield from (f"/{SERVICE}/{method.name}" for method in service.methods)


@pytest.mark.parametrize("key", ["", "mr_wrong_key"])
async def test_every_method_asks_for_a_key(link: grpc.aio.Channel, key: str) -> None:
    sent = metadata(key) if key else ()
    requested = 0
    for path in methods():
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await raw(link, path)(b"", metadata=sent)
        assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
        requested += 1
    assert requested >= 12
    for version in ("v1", "v1alpha"):
        call: Any = link.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")(
            metadata=sent
        )
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_health_is_open_and_knows_every_service_by_name(link: grpc.aio.Channel) -> None:
    health: Any = health_pb2_grpc.HealthStub(link)
    for name in ("", SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await health.Check(health_pb2.HealthCheckRequest(service="unknown"))
    assert error.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_lists_the_services_and_gives_their_files(
    link: grpc.aio.Channel, keys: Path, version: str
) -> None:
    call = link.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )(metadata=metadata(read_key(keys)))
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE))
    await call.done_writing()
    listed, file = [answer async for answer in call]
    names = {service.name for service in listed.list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} <= names
    assert file.file_descriptor_response.file_descriptor_proto


@pytest.mark.parametrize("kind", sorted(BY_KIND))
async def test_a_refusal_arrives_as_it_was_raised(link: grpc.aio.Channel, keys: Path, kind: str) -> None:
    raised = BY_KIND[kind](field="model", hint="do this", retry_after_seconds=7.5, **FACTS)
    came = await error(link, keys, kind)
    assert came.body() == raised.body()
    assert (came.kind, came.code, came.retryable, str(came)) == (Kind(kind), raised.code, raised.retryable, str(raised))


def test_every_kind_is_tried() -> None:
    assert {NotFound, Overloaded, TooLarge, Unsupported} <= set(BY_KIND.values())
    assert len(BY_KIND) == len(Kind)


@pytest.mark.parametrize(("file", "tenant"), [(SERVICE_KEY_FILE, "acme"), (API_KEY_FILE, "default")])
async def test_a_service_asks_for_the_tenant_that_it_names_and_nobody_else_does(
    link: grpc.aio.Channel, keys: Path, file: str, tenant: str
) -> None:
    stub: Any = registry_pb2_grpc.RegistryServiceStub(link)
    output = await stub.GetModel(wire.GetModelRequest(model="whose"), metadata=metadata(read_key(keys, file), "acme"))
    assert output.name == tenant


async def test_an_error_of_ours_tells_nothing_of_the_inside(link: grpc.aio.Channel, keys: Path) -> None:
    came = await error(link, keys, "crash")
    assert (came.kind, came.code) == (Kind.INTERNAL, "internal_error")
    assert "secret" not in str(came.body())


async def test_an_unknown_method_is_unimplemented(link: grpc.aio.Channel, keys: Path) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await raw(link, f"/{SERVICE}/Nothing")(b"", metadata=metadata(read_key(keys)))
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_too_large_a_message_and_bytes_that_are_none_are_refused(link: grpc.aio.Channel, keys: Path) -> None:
    call = raw(link, f"/{SERVICE}/GetModel")
    codes = []
    for body in (b"\n" + b"\xff" * 9, b"\x0a\x85\x80\x80\x02" + b"x" * (4 * 1024 * 1024 + 5)):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call(body, metadata=metadata(read_key(keys)))
        codes.append(error.value.code())
    assert codes[1] is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert codes[0] in {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}


async def test_a_call_is_a_span_in_the_trace_of_its_caller(link: grpc.aio.Channel, keys: Path, spans: Spans) -> None:
    stub = registry_pb2_grpc.RegistryServiceStub(link)
    sent = (*metadata(read_key(keys)), ("traceparent", TRACEPARENT))
    assert (await stub.GetModel(wire.GetModelRequest(model="m"), metadata=sent)).name == "m"
    made = spans.only(f"{SERVICE}/GetModel")
    assert trace_of(made) == "0af7651916cd43dd8448eb211c80319c"
    attributes = dict(made.attributes or {})
    assert str(attributes.pop("millrace.actor")).startswith("service:")
    assert attributes == {"rpc.system": "grpc", "rpc.service": SERVICE, "rpc.method": "GetModel"}
    await error(link, keys, "not_found")
    failed = spans.named(f"{SERVICE}/GetModel")[1]
    assert (failed.attributes or {})["error.type"] == "not_found"
    assert not failed.status.is_ok


async def test_a_port_that_is_taken_is_reported(server: RpcServer, keys: Path) -> None:
    with pytest.raises(PortTaken, match=str(server.port)):
        RpcServer(Keyring(keys, SystemClock()), "127.0.0.1", server.port)
