"""One inference process, fed by a real broker and a real artifact store, as its neighbours see it."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from services.cli.launcher.ports import any_free
from services.contracts.artifact import ArtifactRef, Precision
from services.contracts.events import DeploymentChanged, Role, Target
from services.contracts.rpc import replica_pb2 as pb
from services.contracts.rpc import replica_pb2_grpc
from services.contracts.tasks import CLASSIFICATION
from services.contracts.tasks.classification import ClassificationRequest
from services.kit.core.clock import SystemClock
from services.kit.identity.auth import ensure_keys, read_key
from services.kit.messaging.envelope import Envelope, encode
from services.kit.messaging.producer import EventProducer
from services.kit.storage.artifacts import ArtifactStore
from services.kit.transport.failures import from_failure
from services.kit.transport.rpc import channel
from tests.unit.inference import tiny
from tests.waiting import LIMIT_SECONDS

TRACE = f"00-{'c' * 32}-{'d' * 16}-01"


@dataclass
class Replica:
    """A process and everything around it, in one home folder."""

    home: Path
    bootstrap: str
    port: int = field(default_factory=any_free)
    process: subprocess.Popen[bytes] | None = None
    generation: int = 0

    def __post_init__(self) -> None:
        ensure_keys(self.home / "keys")
        self.key = (("authorization", f"Bearer {read_key(self.home / 'keys')}"),)
        self.store = ArtifactStore((self.home / "artifacts").as_uri(), self.home / "keys")
        self.writer = EventProducer(self.bootstrap, "registry-of-the-test")
        self.channel = channel(f"127.0.0.1:{self.port}")
        self.stub: Any = replica_pb2_grpc.ReplicaServiceStub(self.channel)

    def start(self, **settings: str) -> None:
        given = {f"MILLRACE_INFERENCE_{name.upper()}": value for name, value in settings.items()}
        environment = os.environ | {
            "MILLRACE_HOME": str(self.home),
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap,
            "MILLRACE_INFERENCE_HTTP_PORT": "0",
            "MILLRACE_INFERENCE_GRPC_PORT": str(self.port),
            "MILLRACE_INFERENCE_WORKERS": "1",
            "MILLRACE_INFERENCE_DRAIN_GRACE_SECONDS": "0.5",
            "MILLRACE_INFERENCE_HEARTBEAT_SECONDS": "1",
            **given,
        }
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "services.inference"], env=environment, stderr=log)

    def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(20)

    async def put(self, version: int) -> ArtifactRef:
        folder = self.home / f"made-{version}"
        tiny.write(folder, described=tiny.spec(base_model=f"tiny-{version}"))
        return await self.store.put(folder, f"topics/{version}")

    async def deployment(self, *targets: Target) -> None:
        self.generation += 1
        changed = DeploymentChanged(
            deployment="topics", model="topics", generation=self.generation, targets=list(targets), reason="a test"
        )
        now = SystemClock().now()
        envelope = Envelope(f"e{self.generation}", changed, "registry", now, trace={"traceparent": TRACE})
        await self.writer.send([encode(envelope)])

    async def send(self, text: str = "read the file", version: int = 0, request: str = "r-1") -> pb.Result:
        """Raises what the replica refuses."""
        call = self.stub.Predict(
            iter([replica_request(1, text, version=version, request=request)]),
            metadata=self.key,
            wait_for_ready=True,
            timeout=LIMIT_SECONDS,
        )
        async for event in call:
            if event.id:
                if event.HasField("failure"):
                    raise from_failure(event.failure)
                result: pb.Result = event.result
                return result
        raise AssertionError("the stream ended without an answer")

    async def answers(self, version: int) -> None:
        """Returns once this version answers."""
        async with asyncio.timeout(LIMIT_SECONDS):
            while True:
                with suppress(Exception):
                    if (await self.send(version=version)).version == version:
                        return
                await asyncio.sleep(0.05)

    async def reports(self, topic: str, enough: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """Everything on the topic, from its beginning, as soon as that is enough; headers under 'headers'."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, enable_auto_commit=False)
        await consumer.start()
        try:
            numbers = await self._partitions(consumer, topic)
            consumer.assign([TopicPartition(topic, number) for number in numbers])
            await consumer.seek_to_beginning()
            matches: list[dict[str, Any]] = []
            async with asyncio.timeout(LIMIT_SECONDS):
                while not enough(matches):
                    for records in (await consumer.getmany(timeout_ms=100)).values():
                        for record in records:
                            headers = {name: value.decode() for name, value in record.headers}
                            matches.append(orjson.loads(record.value) | {"headers": headers})
            return matches
        finally:
            await consumer.stop()

    async def _partitions(self, consumer: Any, topic: str) -> list[int]:
        while not (numbers := consumer.partitions_for_topic(topic)):
            await consumer._client.add_topic(topic)
            await asyncio.sleep(0.05)
        return sorted(numbers)


def replica_request(number: int, text: str, *, version: int = 0, request: str = "") -> pb.ReplicaRequest:
    payload = CLASSIFICATION.encode(ClassificationRequest([text]))
    return pb.ReplicaRequest(
        id=number,
        predict=pb.TaskRequest(
            deployment="topics", task="classification", payload=payload, version=version, request_id=request
        ),
    )


def target(version: int, ref: ArtifactRef, role: Role = Role.PRIMARY, weight: int = 100) -> Target:
    return Target(version=version, artifact=ref, precision=Precision.FP32, role=role, weight=weight)


@asynccontextmanager
async def replica_on(home: Path, bootstrap: str) -> AsyncIterator[Replica]:
    replica = Replica(home, bootstrap)
    try:
        yield replica
    finally:
        await replica.channel.close()
        await replica.writer.close()
        if replica.process is not None and replica.process.poll() is None:
            replica.end(signal.SIGKILL)


class Traffic:
    """Requests on one stream, one after another in each of `clients` lanes, until told to stop."""

    def __init__(self, replica: Replica, clients: int = 8, version: int = 0) -> None:
        self.replica = replica
        self.clients = clients
        self.version = version
        self.answered: list[pb.ReplicaEvent] = []
        self._waiting: dict[int, asyncio.Future[pb.ReplicaEvent]] = {}
        self._number = 0
        self._stop = False

    @property
    def failed(self) -> list[pb.ReplicaEvent]:
        return [answer for answer in self.answered if not answer.HasField("result")]

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        call = self.replica.stub.Predict(metadata=self.replica.key)
        one_at_a_time = asyncio.Lock()
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(self._read(call))
            batch_keys = [tasks.create_task(self._batch_key(call, one_at_a_time)) for _ in range(self.clients)]
            yield
            self._stop = True
            await asyncio.wait(batch_keys)
            await call.done_writing()
            await reading

    def stop(self) -> None:
        self._stop = True

    async def _batch_key(self, call: Any, one_at_a_time: asyncio.Lock) -> None:
        while not self._stop:
            self._number += 1
            number = self._number
            answer = self._waiting[number] = asyncio.get_running_loop().create_future()
            async with one_at_a_time:
                await call.write(replica_request(number, "close the socket", version=self.version))
            self.answered.append(await answer)  # the reader may have taken it from the table by now

    async def _read(self, call: Any) -> None:
        async for answer in call:
            if answer.id:
                self._waiting.pop(answer.id).set_result(answer)
