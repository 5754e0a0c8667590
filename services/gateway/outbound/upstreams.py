"""The other services' gRPC endpoints: bytes in, bytes out."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import grpc

from services.contracts.errors import MillraceError
from services.gateway.errors import ServiceBroken, ServiceSilent
from services.gateway.ports import Metadata
from services.gateway.telemetry import FORWARDED
from services.kit.transport.rpc import channel, refusal_from

DETAILS: Final = "grpc-status-details-bin"
RETRY_AFTER_SECONDS: Final = 1.0
_OPAQUE: Final = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)


class UpstreamChannels:
    """One channel a service, opened with its first call. `addresses` goes by the services' protobuf names."""

    def __init__(self, addresses: Mapping[str, str]) -> None:
        self._addresses = addresses
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def call(self, method: str, request: bytes, metadata: Metadata, *, tenant: str, seconds: float) -> bytes:
        service = _service(method)
        call: Any = self._channel(service).unary_unary(method)
        try:
            answer: bytes = await call(request, metadata=tuple(metadata), timeout=seconds)
        except grpc.aio.AioRpcError as error:
            raise _error_of(service, tenant, error) from error
        FORWARDED.add(1, tenant=tenant, service=_short(service), code="ok")
        return answer

    async def stream(
        self, method: str, request: bytes, metadata: Metadata, *, tenant: str, seconds: float
    ) -> AsyncIterator[bytes]:
        service = _service(method)
        open_call: Any = self._channel(service).unary_stream(method)
        call = open_call(request, metadata=tuple(metadata), timeout=seconds)
        try:
            async for answer in call:
                yield answer
        except grpc.aio.AioRpcError as error:
            raise _error_of(service, tenant, error) from error
        finally:
            call.cancel()
        FORWARDED.add(1, tenant=tenant, service=_short(service), code="ok")

    async def close(self) -> None:
        await asyncio.gather(*(opened.close() for opened in self._channels.values()))

    def _channel(self, service: str) -> grpc.aio.Channel:
        if service not in self._channels:
            self._channels[service] = channel(self._addresses[service])
        return self._channels[service]


def _service(method: str) -> str:
    return method.strip("/").partition("/")[0]


def _short(service: str) -> str:
    """`millrace.v1.RegistryService` is the registry."""
    return service.rpartition(".")[2].removesuffix("Service").lower()


def _error_of(service: str, tenant: str, error: grpc.aio.AioRpcError) -> MillraceError:
    """What the service said; where gRPC speaks for it, words of ours that tell nothing of the inside."""
    has_details = any(name == DETAILS for name, _ in error.trailing_metadata() or ())
    failure = refusal_from(error)
    if not has_details and error.code() is grpc.StatusCode.UNAVAILABLE:
        failure = ServiceSilent(service=_short(service), retry_after_seconds=RETRY_AFTER_SECONDS)
    elif not has_details and error.code() in _OPAQUE:
        failure = ServiceBroken(service=_short(service))
    FORWARDED.add(1, tenant=tenant, service=_short(service), code=failure.code)
    return failure
