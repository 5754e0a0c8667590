"""A whole gateway in one process, with replicas and a registry that stand in for the real ones."""

import asyncio
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
from google.protobuf import message_factory
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.cli.launcher.ports import any_free
from services.contracts.artifact import ArtifactRef, Precision
from services.contracts.events import DeploymentChanged, Event, ReplicaReported, ReplicaVersion, Role, Target
from services.contracts.names import DEFAULT_TENANT
from services.contracts.rpc import inference_pb2, registry_pb2, registry_pb2_grpc, replica_pb2_grpc, trainer_pb2_grpc
from services.contracts.rpc import replica_pb2 as pb
from services.contracts.tasks import CLASSIFICATION, TASKS
from services.contracts.tasks.classification import ClassificationResult, LabelScore, Prediction
from services.contracts.tasks.embedding import EmbeddingResult
from services.contracts.tasks.task import AnswerInfo
from services.gateway.app import Adapters, build
from services.gateway.settings import GatewaySettings
from services.kit.core.clock import SystemClock
from services.kit.core.ids import SystemIds
from services.kit.identity.auth import API_KEY_FILE, Keyring, ensure_keys, read_key
from services.kit.messaging.envelope import Envelope, encode
from services.kit.messaging.producer import EventProducer
from services.kit.service import Service
from services.kit.transport.rpc import RpcServer
from tests.integration.gateway.upstreams import FakeRegistry, FakeTrainer
from tests.waiting import LIMIT_SECONDS

EMBEDDING = (0.0, 0.6, 0.8)
ARTIFACT = ArtifactRef(uri="file:///nowhere", digest="0" * 64, signer="test", size_bytes=1)


def target(version: int, role: Role = Role.PRIMARY, weight: int = 100) -> Target:
    return Target(version=version, artifact=ARTIFACT, precision=Precision.INT8, role=role, weight=weight)


async def until(condition: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while not condition():  # noqa: ASYNC110 - waits for what others do
            await asyncio.sleep(0.005)
    assert condition(), what


@dataclass(frozen=True)
class ReplicaCall:
    """A request as a replica gets it, opened."""

    id: int
    predict: pb.TaskRequest

    def __getattr__(self, name: str) -> Any:
        return getattr(self.predict, name)

    @property
    def message(self) -> Any:
        """What the payload holds: a ClassifyRequest or an EmbedRequest."""
        kinds: dict[str, Any] = {
            "classification": inference_pb2.ClassifyRequest,
            "embedding": inference_pb2.EmbedRequest,
        }
        return kinds[self.predict.task].FromString(self.predict.payload)

    @property
    def texts(self) -> list[str]:
        return list(self.message.texts)


Behaviour = Callable[[ReplicaCall], Awaitable[pb.ReplicaEvent]]


async def answer_at_once(request: ReplicaCall) -> pb.ReplicaEvent:
    return answered(request, [EMBEDDING] * len(request.texts))


def answered(request: ReplicaCall, vectors: Sequence[Sequence[float]], tokens: int = 7) -> pb.ReplicaEvent:
    task = TASKS.named(request.task)
    embeddings = [array("f", vector) for vector in vectors]
    result: Any = EmbeddingResult(embeddings)
    if task is CLASSIFICATION:
        scores = (LabelScore("dev", 0.75), LabelScore("data", 0.25))
        predictions = [Prediction("dev", 0.75, scores) for _ in request.texts]
        result = ClassificationResult(predictions, embeddings if request.message.with_embeddings else ())
    info = AnswerInfo(request.request_id, request.deployment, "news", request.version, tokens)
    payload = task.encode_result(result, info)
    result_message = pb.Result(payload=payload, model="news", version=request.version, tokens=tokens)
    return pb.ReplicaEvent(id=request.id, result=result_message)


def refuse_with(kind: str, code: str = "no") -> Behaviour:
    async def behave(request: ReplicaCall) -> pb.ReplicaEvent:
        failure = inference_pb2.Failure(kind=kind, code=code, message="the replica says no", field="texts")
        return pb.ReplicaEvent(id=request.id, failure=failure)

    return behave


class FakeReplica(replica_pb2_grpc.ReplicaServiceServicer):
    """An inference process as the gateway sees it; `behaviours` says by version how it answers."""

    def __init__(self, name: str, keyring: Keyring, port: int = 0) -> None:
        self.name = name
        self.server = RpcServer(keyring, "127.0.0.1", port)
        register = replica_pb2_grpc.add_ReplicaServiceServicer_to_server
        self.server.add(register, self, "millrace.v1.ReplicaService")
        self.behaviours: dict[int, Behaviour] = {}
        self.seen: list[ReplicaCall] = []
        self.cancelled: list[int] = []
        self.sequence = 0

    async def Predict(  # type: ignore[override]  # noqa: N802
        self, requests: AsyncIterator[pb.ReplicaRequest], context: Any
    ) -> None:
        writing = asyncio.Lock()

        async def serve(request: ReplicaCall) -> None:
            answer = await self.behaviours.get(request.version, answer_at_once)(request)
            async with writing:
                await context.write(answer)

        async with asyncio.TaskGroup() as group:
            async for request in requests:
                if request.HasField("cancel"):
                    self.cancelled.append(request.id)
                    continue
                self.seen.append(ReplicaCall(request.id, request.predict))
                group.create_task(serve(self.seen[-1]))

    async def kill(self) -> None:
        """Without a farewell, as far as one process can."""
        await self.server._server.stop(None)

    def report(self, *versions: int, leaving: bool = False, capacity: int = 64) -> ReplicaReported:
        self.sequence += 1
        return ReplicaReported(
            replica=self.name,
            address=self.server.address,
            sequence=self.sequence,
            versions=[
                ReplicaVersion(deployment="news", model="news", version=number, state="ready") for number in versions
            ],
            capacity=capacity,
            leaving=leaving,
        )


@dataclass
class GatewayUnderTest:
    """The gateway under test and everything around it."""

    home: Path
    service: Service[Any]
    running: asyncio.Task[int]
    keyring: Keyring
    registry: FakeRegistry
    trainer: FakeTrainer
    rest: str
    rpc: str
    client: httpx.AsyncClient
    channel: grpc.aio.Channel
    writer: EventProducer
    spans: InMemorySpanExporter
    replicas: list[FakeReplica] = field(default_factory=list)
    generation: int = 0
    metadata: tuple[tuple[str, str], ...] = ()

    async def replica(self, name: str, *versions: int, port: int = 0) -> FakeReplica:
        replica = FakeReplica(name, self.keyring, port)
        await replica.server.open()
        self.replicas.append(replica)
        await self.publish(replica.report(*versions))
        return replica

    async def deploy(
        self,
        *targets: Target,
        mirror: float = 0.0,
        trace_context: dict[str, str] | None = None,
        tenant: str = DEFAULT_TENANT,
    ) -> None:
        self.generation += 1
        event = DeploymentChanged(
            deployment="news",
            model="news",
            generation=self.generation,
            targets=[*targets],
            mirror=mirror,
            reason="test",
        )
        await self.publish(event, trace_context, tenant)

    async def publish(
        self, event: Event, trace_context: dict[str, str] | None = None, tenant: str = DEFAULT_TENANT
    ) -> None:
        envelope = Envelope(
            id=SystemIds().new("evt"),
            event=event,
            source="test",
            time=SystemClock().now(),
            tenant=tenant,
            trace=trace_context or {},
        )
        await self.writer.send([encode(envelope)])

    async def classify(self, *texts: str, **body: Any) -> httpx.Response:
        headers = body.pop("headers", {})
        path = "/api/v1/deployments/news/classify"
        return await self.client.post(path, json={"texts": list(texts) or ["a text"], **body}, headers=headers)

    async def serves(self, version: int) -> None:
        """Returns once a request is answered by that version."""
        async with asyncio.timeout(LIMIT_SECONDS):
            while (await self.classify()).headers.get("x-millrace-version") != str(version):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    def ended_spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans.get_finished_spans() if span.name == name]

    def rpc_method(self, service: Any, name: str) -> Callable[..., Any]:
        """A unary gRPC method of the gateway's door, called with the key."""
        method = service.methods_by_name[name]
        call = self.channel.unary_unary(
            f"/{service.full_name}/{name}",
            request_serializer=message_factory.GetMessageClass(method.input_type).SerializeToString,
            response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
        )

        def request_of(request: Any, **options: Any) -> Any:
            return call(request, metadata=(*self.metadata, *options.pop("more", ())), **options)

        return request_of


def identity(span: ReadableSpan) -> tuple[str, str, str]:
    """Trace, span and parent, in hexadecimal as they stand in a traceparent."""
    context = span.get_span_context()
    assert context is not None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}", f"{span.parent.span_id:016x}" if span.parent else ""


def collect_spans() -> InMemorySpanExporter:
    """The provider can be set once a process, so each test adds a collector of its own."""
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    spans = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return spans


async def _open_upstreams(keyring: Keyring) -> tuple[Any, Any, RpcServer]:
    """A registry and a trainer that answer what tests need; the methods they lack answer UNIMPLEMENTED."""
    server = RpcServer(keyring, "127.0.0.1", 0)
    fakes: tuple[Any, Any] = (FakeRegistry, FakeTrainer)
    registry, trainer = (make() for make in fakes)
    server.add(registry_pb2_grpc.add_RegistryServiceServicer_to_server, registry, "millrace.v1.RegistryService")
    server.add(trainer_pb2_grpc.add_TrainerServiceServicer_to_server, trainer, "millrace.v1.TrainerService")
    stop = grpc.unary_unary_rpc_method_handler(
        registry.StopDeployment,
        request_deserializer=registry_pb2.MoveRolloutRequest.FromString,
        response_serializer=registry_pb2.Deployment.SerializeToString,
    )
    handler = grpc.method_handlers_generic_handler("millrace.v1.RegistryService", {"StopDeployment": stop})
    server.add_generic([handler], [])
    await server.open()
    return registry, trainer, server


def _settings(home: Path, bootstrap: str, upstreams: str, knobs: dict[str, Any]) -> GatewaySettings:
    http_port = any_free()
    return GatewaySettings.model_validate(
        {
            "MILLRACE_HOME": home,
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
            "registry_address": upstreams,
            "trainer_address": upstreams,
            "monitor_address": "127.0.0.1:1",
            "ready_wait_seconds": 2.0,
            "http_port": http_port,
            "grpc_port": any_free({http_port}),
            **knobs,
        }
    )


@asynccontextmanager
async def open_gateway(home: Path, bootstrap: str, **knobs: Any) -> AsyncIterator[GatewayUnderTest]:
    """A running gateway; its knobs are those of GatewaySettings, and `tasks`."""
    ensure_keys(home / "keys")
    keyring = Keyring(home / "keys", SystemClock())
    registry, trainer, upstreams = await _open_upstreams(keyring)
    adapters = Adapters(tasks=knobs.pop("tasks", TASKS))
    settings = _settings(home, bootstrap, upstreams.address, knobs)
    service = build(settings, adapters)
    rest, rpc = f"127.0.0.1:{settings.http_port}", f"127.0.0.1:{settings.grpc_port}"
    key = read_key(home / "keys", API_KEY_FILE)
    running = asyncio.create_task(service.run())
    headers = {"authorization": f"Bearer {key}"}
    client = httpx.AsyncClient(base_url=f"http://{rest}", headers=headers, timeout=LIMIT_SECONDS)
    gateway = GatewayUnderTest(
        home=home,
        service=service,
        running=running,
        keyring=keyring,
        registry=registry,
        trainer=trainer,
        rest=rest,
        rpc=rpc,
        client=client,
        channel=grpc.aio.insecure_channel(rpc),
        writer=EventProducer(bootstrap, "test"),
        spans=collect_spans(),
        metadata=(("authorization", f"Bearer {key}"),),
    )
    try:
        await until(lambda: running.done() or all(check() for check in service.checks.values()), "the gateway is ready")
        assert not running.done()
        yield gateway
    finally:
        await client.aclose()
        await gateway.channel.close()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await gateway.writer.close()
        for replica in gateway.replicas:
            await replica.server.close()
        await upstreams.close()
