"""gRPC doors: keys, errors, traces, health and reflection for every service; and calling another service."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any, Final, Protocol

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc
from opentelemetry.trace import SpanKind

from services.contracts.access import OPEN_METHODS, KeyRole
from services.contracts.errors import ErrorBody, InternalError, Kind, MillraceError, Relayed, Unauthenticated
from services.contracts.names import DEFAULT_TENANT
from services.kit.core import telemetry
from services.kit.core.log import logger
from services.kit.identity.auth import (
    RELOAD_SECONDS,
    ForServicesOnly,
    Keyring,
    Principal,
    check_role,
    current_principal,
)
from services.kit.transport.http import PortTaken

STATUS: Final = {
    Kind.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Kind.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Kind.FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    Kind.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Kind.CONFLICT: grpc.StatusCode.FAILED_PRECONDITION,
    Kind.STALE: grpc.StatusCode.FAILED_PRECONDITION,
    Kind.TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Kind.UNSUPPORTED: grpc.StatusCode.UNIMPLEMENTED,
    Kind.OVERLOADED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Kind.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Kind.TIMED_OUT: grpc.StatusCode.DEADLINE_EXCEEDED,
    Kind.INTERNAL: grpc.StatusCode.INTERNAL,
}
KIND: Final = {code: kind for kind, code in STATUS.items()} | {
    grpc.StatusCode.RESOURCE_EXHAUSTED: Kind.OVERLOADED,
    grpc.StatusCode.FAILED_PRECONDITION: Kind.CONFLICT,
    grpc.StatusCode.CANCELLED: Kind.UNAVAILABLE,
}
TENANT: Final = "millrace-tenant"
"""Metadata in which a service, and nobody else, says for which tenant it asks."""
ERROR_DOMAIN: Final = "millrace"
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
GRACE_SECONDS: Final = 10.0
_OPTIONS: Final = (("grpc.max_send_message_length", MAX_MESSAGE_BYTES), ("grpc.so_reuseport", 0))


def rich_status(error: MillraceError) -> status_pb2.Status:
    """`google.rpc.Status` with ErrorInfo, and BadRequest, Help-like hint and RetryInfo where they apply."""
    body = error.body()
    info = error_details_pb2.ErrorInfo(reason=body.code, domain=ERROR_DOMAIN, metadata={"kind": error.kind.value})
    if body.hint:
        info.metadata["hint"] = body.hint
    details: list[Any] = [info]
    if body.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=body.field, description=body.message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if (seconds := error.retry_after) is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(math.ceil(seconds * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        wrapped = any_pb2.Any()
        wrapped.Pack(detail)
        packed.append(wrapped)
    return status_pb2.Status(code=STATUS[error.kind].value[0], message=body.message, details=packed)


async def abort(context: Any, error: MillraceError) -> None:
    """Ends the call with the refusal. Raises grpc's AbortError, always."""
    details = (("grpc-status-details-bin", rich_status(error).SerializeToString()),)
    await context.abort(STATUS[error.kind], str(error), trailing_metadata=details)


class Permit(Protocol):
    """One request that was let in."""

    def release(self) -> None:
        """The request has ended, however it ended."""
        ...


class Gate(Protocol):
    """How much one key may ask."""

    async def admit(self, principal: Principal) -> Permit:
        """Lets one request of this caller in. Raises Overloaded where its key is past a limit."""
        ...


class _OpenStreams:
    """Ends what a key opened once the key no longer holds: at most two seconds after it was revoked or has expired."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._open: dict[asyncio.Timeout, Principal] = {}

    @asynccontextmanager
    async def watched(self, principal: Principal) -> AsyncIterator[None]:
        """Raises Unauthenticated inside when the key is revoked meanwhile."""
        try:
            async with asyncio.timeout(None) as scope:
                self._open[scope] = principal
                try:
                    yield
                finally:
                    del self._open[scope]
        except TimeoutError:
            if scope.expired():
                raise Unauthenticated from None
            raise

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(RELOAD_SECONDS)
            for scope, principal in list(self._open.items()):
                if not self._keyring.holds(principal):
                    scope.reschedule(loop.time())


class _AuthInterceptor(grpc.aio.ServerInterceptor):
    """Asks for a key and its role, opens the span, turns refusals into statuses; for every method, reflection too."""

    def __init__(
        self, keyring: Keyring, streams: _OpenStreams, *, gate: Gate | None, services_only: bool = False
    ) -> None:
        self._keyring = keyring
        self._streams = streams
        self._gate = gate
        self._services_only = services_only

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(details)
        if handler is None or details.method in OPEN_METHODS:
            return handler
        streams_in, streams_out = handler.request_streaming, handler.response_streaming
        name = {(False, False): "unary_unary", (False, True): "unary_stream"}
        name |= {(True, False): "stream_unary", (True, True): "stream_stream"}
        shape = name[streams_in, streams_out]
        build = getattr(grpc, f"{shape}_rpc_method_handler")
        behaviour = getattr(handler, shape)
        answer = (
            self._stream(details.method, behaviour, streams_in)
            if streams_out
            else self._unary(details.method, behaviour)
        )
        return build(
            answer,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _unary(
        self, method: str, behaviour: Callable[[Any, Any], Awaitable[Any]]
    ) -> Callable[[Any, Any], Awaitable[Any]]:
        async def answer(request: Any, context: Any) -> Any:
            try:
                principal, metadata = self._admit(method, context)
                passed = await self._gate.admit(principal) if self._gate is not None else None
                try:
                    with _span(method, metadata, principal):
                        return await behaviour(request, context)
                finally:
                    if passed is not None:
                        passed.release()
            except MillraceError as error:
                await abort(context, error)
            except grpc.aio.AbortError:
                raise
            except Exception:  # noqa: BLE001 - it ends the call, and tells nothing of the inside
                logger.exception("%s failed", method)
                await abort(context, InternalError())

        return answer

    def _stream(
        self, method: str, behaviour: Callable[[Any, Any], Any], streams_in: bool
    ) -> Callable[[Any, Any], Awaitable[None]]:
        async def answers(request: Any, context: Any) -> None:
            try:
                principal, _ = self._admit(method, context)
                passed = await self._gate.admit(principal) if self._gate is not None else None
                if passed is not None and streams_in:
                    passed.release()  # opening counts as one; then each of its messages asks for itself
                try:
                    async with self._streams.watched(principal):
                        await _answer_all(behaviour(request, context), context)
                finally:
                    if passed is not None and not streams_in:
                        passed.release()
            except MillraceError as error:
                await abort(context, error)
            except grpc.aio.AbortError:
                raise
            except Exception:  # noqa: BLE001 - as above
                logger.exception("%s failed", method)
                await abort(context, InternalError())

        return answers

    def _admit(self, method: str, context: Any) -> tuple[Principal, Mapping[str, str]]:
        metadata = {str(key): value for key, value in context.invocation_metadata()}
        principal = self._keyring.authenticate(metadata.get("authorization"))
        check_role(principal, method)
        if principal.role is KeyRole.SERVICE and TENANT in metadata:
            principal = replace(principal, tenant=metadata[TENANT])
        if self._services_only and principal.role is not KeyRole.SERVICE:
            raise ForServicesOnly
        current_principal.set(principal)
        return principal, metadata


async def _answer_all(result: Any, context: Any) -> None:
    """What a behaviour gives: a coroutine that reads and writes by itself, or messages to be written."""
    if asyncio.iscoroutine(result):
        await result
        return
    async with aclosing(result) as messages:
        async for message in messages:
            await context.write(message)


@contextmanager
def _span(method: str, metadata: Mapping[str, str], principal: Principal) -> Any:
    service, _, name = method.strip("/").partition("/")
    attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name, "millrace.actor": principal.actor}
    with telemetry.span(method.strip("/"), kind=SpanKind.SERVER, parent=metadata, attributes=attributes):
        yield


class RpcServer:
    """One gRPC server: the room's services, health and reflection behind one interceptor.

    A message larger than `receive_bytes` is refused by gRPC itself. `gate` says how much each key may ask. With
    `services_only` nobody else comes in: where what belongs to whom is known to the gateway alone.
    """

    def __init__(
        self,
        keyring: Keyring,
        host: str,
        port: int,
        *,
        gate: Gate | None = None,
        receive_bytes: int = MAX_MESSAGE_BYTES,
        services_only: bool = False,
    ) -> None:
        self._streams = _OpenStreams(keyring)
        self._watching: asyncio.Task[None] | None = None
        self._server = grpc.aio.server(
            interceptors=[_AuthInterceptor(keyring, self._streams, gate=gate, services_only=services_only)],
            options=(*_OPTIONS, ("grpc.max_receive_message_length", receive_bytes)),
        )
        self._health = health.aio.HealthServicer()
        self._names: list[str] = []
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        try:
            self.port = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise PortTaken(port=port) from error
        self.address = f"{host}:{self.port}"

    def add(self, register: Callable[[Any, Any], None], servicer: Any, service_name: str) -> None:
        """`register` is the generated `add_..._to_server`; `service_name` the full protobuf name."""
        register(servicer, self._server)
        self._names.append(service_name)

    def add_generic(self, handlers: Sequence[grpc.GenericRpcHandler], service_names: Sequence[str]) -> None:
        """Handlers that know no message type, such as a forwarder's."""
        self._server.add_generic_rpc_handlers(tuple(handlers))
        self._names.extend(service_names)

    async def open(self) -> None:
        names = [*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME]
        self._add_reflection(names)
        await self._server.start()
        self._watching = asyncio.create_task(self._streams.run(), name="keys of open streams")
        for name in ("", *names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        logger.info("gRPC on %s", self.address)

    async def close(self) -> None:
        await self._health.enter_graceful_shutdown()
        await self._server.stop(GRACE_SECONDS)
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    def _add_reflection(self, names: Sequence[str]) -> None:
        """grpcio serves v1alpha; the same servicer under the name of v1 answers today's clients."""
        servicer = reflection.aio.ReflectionServicer(names)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, self._server)  # type: ignore[no-untyped-call]
        handler = grpc.stream_stream_rpc_method_handler(
            servicer.ServerReflectionInfo,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        generic = grpc.method_handlers_generic_handler(
            "grpc.reflection.v1.ServerReflection", {"ServerReflectionInfo": handler}
        )
        self._server.add_generic_rpc_handlers((generic,))


def channel(address: str) -> grpc.aio.Channel:
    """To another service; reconnects by itself within two seconds."""
    backoff = (("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 2000))
    received = ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)
    return grpc.aio.insecure_channel(address, options=(*_OPTIONS, received, *backoff))


def metadata(key: str, tenant: str = DEFAULT_TENANT) -> tuple[tuple[str, str], ...]:
    """What every call of a service carries: its key, the tenant that it acts for, and the present trace."""
    return (("authorization", f"Bearer {key}"), (TENANT, tenant), *telemetry.current_carrier().items())


def refusal_from(error: grpc.aio.AioRpcError) -> MillraceError:
    """The refusal that the other service raised, as it was."""
    kind = KIND.get(error.code(), Kind.INTERNAL)
    for name, value in error.trailing_metadata() or ():
        if name == "grpc-status-details-bin" and isinstance(value, bytes):
            return _relayed(status_pb2.Status.FromString(value), kind)
    return Relayed(kind, ErrorBody(code=kind.value, message=error.details() or "the call failed"))


def _relayed(status: status_pb2.Status, kind: Kind) -> Relayed:
    """Several kinds share a status code, so a service of ours says its kind."""
    code, hint, field, retry = kind.value, None, None, None
    for detail in status.details:
        info, bad, again = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            code, hint = info.reason, info.metadata.get("hint")
            name = info.metadata.get("kind", "")
            kind = Kind(name) if name in set(Kind) else kind
        elif detail.Unpack(bad) and bad.field_violations:
            field = bad.field_violations[0].field
        elif detail.Unpack(again):
            retry = again.retry_delay.ToMilliseconds() / 1000
    body = ErrorBody(code=code, message=status.message, field=field, hint=hint, retry_after_seconds=retry)
    return Relayed(kind, body)
