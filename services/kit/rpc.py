"""gRPC doors: keys, errors, traces, health and reflection for every service; and calling another service."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc
from opentelemetry.trace import SpanKind

from services.contracts.errors import ErrorBody, InternalError, Kind, Refusal, Relayed, Unavailable
from services.kit import telemetry
from services.kit.auth import Keyring, present_principal
from services.kit.log import logger

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
OPEN: Final = "/grpc.health.v1.Health/"
ERROR_DOMAIN: Final = "millrace"
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
GRACE_SECONDS: Final = 10.0
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),
)


def rich_status(refusal: Refusal) -> status_pb2.Status:
    """`google.rpc.Status` with ErrorInfo, and BadRequest, Help-like hint and RetryInfo where they apply."""
    body = refusal.body()
    info = error_details_pb2.ErrorInfo(reason=body.code, domain=ERROR_DOMAIN, metadata={"kind": refusal.kind.value})
    if body.hint:
        info.metadata["hint"] = body.hint
    details: list[Any] = [info]
    if body.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=body.field, description=body.message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if body.retry_after_seconds is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(body.retry_after_seconds * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        wrapped = any_pb2.Any()
        wrapped.Pack(detail)
        packed.append(wrapped)
    return status_pb2.Status(code=STATUS[refusal.kind].value[0], message=body.message, details=packed)


async def abort(context: Any, refusal: Refusal) -> None:
    """Ends the call with the refusal. Raises grpc's AbortError, always."""
    details = (("grpc-status-details-bin", rich_status(refusal).SerializeToString()),)
    await context.abort(STATUS[refusal.kind], str(refusal), trailing_metadata=details)


class _Doorkeeper(grpc.aio.ServerInterceptor):
    """Asks for a key, opens the span, and turns refusals into statuses; for every method, reflection included."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self.health: set[str] = set()
        """Methods that tell of health alone, under another name than gRPC's own: these ask for no key."""

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(details)
        if handler is None or details.method.startswith(OPEN) or details.method in self.health:
            return handler
        wrap = self._stream if handler.response_streaming else self._unary
        streams_in, streams_out = handler.request_streaming, handler.response_streaming
        name = {(False, False): "unary_unary", (False, True): "unary_stream"}
        name |= {(True, False): "stream_unary", (True, True): "stream_stream"}
        shape = name[streams_in, streams_out]
        build = getattr(grpc, f"{shape}_rpc_method_handler")
        return build(
            wrap(details.method, getattr(handler, shape)),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _unary(
        self, method: str, behaviour: Callable[[Any, Any], Awaitable[Any]]
    ) -> Callable[[Any, Any], Awaitable[Any]]:
        async def answer(request: Any, context: Any) -> Any:
            try:
                with self._admitted(method, context):
                    return await behaviour(request, context)
            except Refusal as refusal:
                await abort(context, refusal)
            except grpc.aio.AbortError:
                raise
            except Exception:  # noqa: BLE001 - it ends the call, and tells nothing of the inside
                logger.exception("%s failed", method)
                await abort(context, InternalError())

        return answer

    def _stream(self, method: str, behaviour: Callable[[Any, Any], Any]) -> Callable[[Any, Any], AsyncIterator[Any]]:
        async def answers(request: Any, context: Any) -> AsyncIterator[Any]:
            try:
                self._admit(context)
                result = behaviour(request, context)
                if asyncio.iscoroutine(result):  # reads and writes on the context itself
                    await result
                    return
                async for message in result:
                    yield message
            except Refusal as refusal:
                await abort(context, refusal)
            except grpc.aio.AbortError:
                raise
            except Exception:  # noqa: BLE001 - as above
                logger.exception("%s failed", method)
                await abort(context, InternalError())

        return answers

    def _admit(self, context: Any) -> Mapping[str, str]:
        metadata = {str(key): value for key, value in context.invocation_metadata()}
        present_principal.set(self._keyring.authenticate(metadata.get("authorization")))
        return metadata

    @contextmanager
    def _admitted(self, method: str, context: Any) -> Any:
        metadata = self._admit(context)
        service, _, name = method.strip("/").partition("/")
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
        with telemetry.span(method.strip("/"), kind=SpanKind.SERVER, parent=metadata, attributes=attributes):
            yield


class PortTaken(Unavailable):
    """The gRPC port {port} cannot be listened on."""

    hint = "another process has it; choose another one, or 0 for any free one"


class RpcServer:
    """One gRPC server: the room's services, health and reflection behind one interceptor."""

    def __init__(self, keyring: Keyring, host: str, port: int) -> None:
        self._doorkeeper = _Doorkeeper(keyring)
        self._server = grpc.aio.server(interceptors=[self._doorkeeper], options=_OPTIONS)
        self._health = health.aio.HealthServicer()
        self._names: list[str] = []
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        try:
            self.port = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise PortTaken(port=port) from error
        self.address = f"{host}:{self.port}"

    def add(
        self, register: Callable[[Any, Any], None], servicer: Any, service_name: str, *, health: Sequence[str] = ()
    ) -> None:
        """`register` is the generated `add_..._to_server`; `service_name` the full protobuf name.

        `health` names methods that tell of health and of nothing else: they ask for no key, and must not raise.
        """
        register(servicer, self._server)
        self._doorkeeper.health.update(f"/{service_name}/{method}" for method in health)
        self._names.append(service_name)

    def add_generic(self, handlers: Sequence[grpc.GenericRpcHandler], service_names: Sequence[str]) -> None:
        """Handlers that know no message type, such as a forwarder's."""
        self._server.add_generic_rpc_handlers(tuple(handlers))
        self._names.extend(service_names)

    async def open(self) -> None:
        names = [*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME]
        self._add_reflection(names)
        await self._server.start()
        for name in ("", *names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        logger.info("gRPC on %s", self.address)

    async def close(self) -> None:
        await self._health.enter_graceful_shutdown()
        await self._server.stop(GRACE_SECONDS)

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
    patience = (("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 2000))
    return grpc.aio.insecure_channel(address, options=(*_OPTIONS, *patience))


def metadata(key: str) -> tuple[tuple[str, str], ...]:
    """What every call carries: the key, and the present trace."""
    return (("authorization", f"Bearer {key}"), *telemetry.current_carrier().items())


def refusal_from(error: grpc.aio.AioRpcError) -> Refusal:
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
            said = info.metadata.get("kind", "")
            kind = Kind(said) if said in set(Kind) else kind
        elif detail.Unpack(bad) and bad.field_violations:
            field = bad.field_violations[0].field
        elif detail.Unpack(again):
            retry = again.retry_delay.ToMilliseconds() / 1000
    body = ErrorBody(code=code, message=status.message, field=field, hint=hint, retry_after_seconds=retry)
    return Relayed(kind, body)
