"""A request of the control API on its way to a handler here, or to the service that owns its gRPC method."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from services.gateway.domain.requests import Caller
from services.gateway.inbound.forwarding import passed_on
from services.gateway.inbound.http.request_reader import BodyLimits
from services.gateway.inbound.http.rest_app import AdmittedRequest
from services.gateway.ports import Ports, Upstreams
from services.kit.core import telemetry
from services.kit.core.idempotency import FIELD


@dataclass(frozen=True)
class Control:
    """What the routes of the control API stand on."""

    ports: Ports
    upstreams: Upstreams
    limits: BodyLimits
    follow_seconds: float
    """How long a log may be followed."""


@dataclass(frozen=True)
class ControlCall:
    request: AdmittedRequest
    control: Control
    method: MethodDescriptor

    @property
    def ports(self) -> Ports:
        return self.control.ports

    @property
    def caller(self) -> Caller:
        principal, key = self.request.principal, self.request.headers.get(FIELD.encode(), "")
        return Caller(tenant=principal.tenant, idempotency_key=key, actor=principal.actor)

    async def forward(self, message: Message) -> Message:
        """The owner's answer. Raises what the owner refuses, and ServiceSilent."""
        response = await self.control.upstreams.call(
            method_path(self.method),
            message.SerializeToString(),
            self._metadata(),
            tenant=self.request.principal.tenant,
            seconds=self._seconds_left(),
        )
        return self._parsed(response)

    async def stream(self, message: Message, *, follow: bool) -> AsyncIterator[Message]:
        """The owner's answers, one after another; raises as `forward` does, also in between."""
        responses = self.control.upstreams.stream(
            method_path(self.method),
            message.SerializeToString(),
            self._metadata(),
            tenant=self.request.principal.tenant,
            seconds=self.control.follow_seconds if follow else self._seconds_left(),
        )
        async for response in responses:
            yield self._parsed(response)

    def _parsed(self, response: bytes) -> Message:
        message = message_factory.GetMessageClass(self.method.output_type)()
        message.ParseFromString(response)
        return message

    def _seconds_left(self) -> float:
        return self.request.deadline - self.ports.clock.monotonic()

    def _metadata(self) -> list[tuple[str, str]]:
        """The caller's own keys go on, so that the owner of the method knows who calls, and whether again."""
        headers = self.request.headers
        key = passed_on(headers.get(FIELD.encode(), ""))
        authorization = ("authorization", headers.get(b"authorization", ""))
        return [authorization, *key, *telemetry.current_carrier().items()]


def method_path(method: MethodDescriptor) -> str:
    """The gRPC method's path, which also says the role that is needed."""
    return f"/{method.containing_service.full_name}/{method.name}"


def _control_call(request: Request) -> ControlCall:
    return ControlCall(request.scope["admitted"], request.app.state.control, request.scope["route"].method)


Call = Annotated[ControlCall, Depends(_control_call)]
