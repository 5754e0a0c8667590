"""A gateway, a replica and a monitor that know a task more than the others; the test is the registry."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from services.cli.launcher.ports import any_free
from services.contracts.events import DeploymentChanged, ReplicaReported, Role, RolloutStep
from services.contracts.rpc import replica_pb2_grpc
from services.contracts.tasks import Tasks
from services.inference.handlers.deployments import on_deployment_changed
from services.inference.inbound.grpc import SERVICE_NAME, ReplicaRpc
from services.inference.outbound.logs import Logging, LogWriter
from services.inference.ports import Artifacts, Engines, Ports
from services.kit.core.clock import SystemClock
from services.kit.core.ids import SystemIds
from services.kit.messaging.envelope import Envelope
from services.kit.transport.rpc import RpcServer
from services.monitor.app import Adapters
from services.monitor.app import build as build_monitor
from services.monitor.settings import MonitorSettings
from tests.integration.gateway.gateway import GatewayUnderTest, open_gateway, target, until
from tests.integration.tasks.counting import WITH_COUNTING, CountingEngines
from tests.unit.inference.fakes import ReplicaUnderTest
from tests.waiting import LIMIT_SECONDS

DEPLOYMENT: Final = "news"
REPLICA: Final = "counter-1"


@dataclass
class Fleet:
    """The services, and the deployment as the registry would have it."""

    gateway: GatewayUnderTest
    replica: Ports
    bootstrap: str
    port: int
    generation: int = 0

    async def serve(self, primary: int = 1, *, canary: int | None = None) -> None:
        """`primary` serves; `canary` answers what it answers too, and takes a tenth of the traffic."""
        self.generation += 1
        targets, rollout = [target(primary, weight=90 if canary else 100)], None
        if canary is not None:
            targets.append(target(canary, Role.CANARY, 10))
            rollout = RolloutStep(rollout=f"r-{canary}", version=canary, state="canary", step=0, steps=1)
        changed = DeploymentChanged(
            deployment=DEPLOYMENT,
            model=DEPLOYMENT,
            generation=self.generation,
            targets=targets,
            mirror=1.0 if canary else 0.0,
            rollout=rollout,
            reason="a test",
        )
        now = SystemClock().now()
        await on_deployment_changed(Envelope(SystemIds().new("evt"), changed, "registry", now), self.replica)
        expected = {one.version for one in targets}
        await until(lambda: expected <= {one.version for one in self._ready()}, "the replica has loaded them")
        await self.gateway.publish(self._report())
        await self.gateway.publish(changed)

    def _ready(self) -> list[Any]:
        return [one for one in self._report().versions if one.state == "ready"]

    def _report(self) -> ReplicaReported:
        address = f"127.0.0.1:{self.port}"
        return self.replica.models.report(address=address, sequence=self.generation or 1, capacity=64, leaving=False)

    async def count(self, *texts: str, **body: Any) -> dict[str, Any]:
        """By REST; asked again while the gateway does not know the deployment yet."""
        path, sent = f"/api/v1/deployments/{DEPLOYMENT}/count", {"texts": texts, **body}
        async with asyncio.timeout(LIMIT_SECONDS):
            while (reply := await self.gateway.client.post(path, json=sent)).status_code == 404:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert reply.status_code == 200, reply.text
        reply_body: dict[str, Any] = reply.json()
        return reply_body

    async def says(self, **feedback: Any) -> None:
        path = f"/api/v1/deployments/{DEPLOYMENT}/feedback"
        reply = await self.gateway.client.post(path, json=feedback)
        assert reply.status_code == 202, reply.text

    async def events(
        self, topic: str, enough: Callable[[list[dict[str, Any]]], bool], seconds: float = LIMIT_SECONDS
    ) -> list[dict[str, Any]]:
        """Everything on the topic, from its beginning, as soon as that is enough."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, enable_auto_commit=False)
        await consumer.start()
        events: list[dict[str, Any]] = []
        try:
            await consumer._client.add_topic(topic)
            await consumer._client.force_metadata_update()
            numbers = sorted(consumer.partitions_for_topic(topic) or ())
            consumer.assign([TopicPartition(topic, number) for number in numbers])
            await consumer.seek_to_beginning()
            async with asyncio.timeout(seconds):
                while not enough(events):
                    for records in (await consumer.getmany(timeout_ms=100)).values():
                        events.extend(orjson.loads(record.value) for record in records)
            return events
        except TimeoutError:
            raise AssertionError(f"not enough on {topic}: {events}") from None
        finally:
            await consumer.stop()


@asynccontextmanager
async def fleet(
    home: Path,
    bootstrap: str,
    *,
    engines: Engines | None = None,
    artifacts: Artifacts | None = None,
    tasks: Tasks = WITH_COUNTING,
    **knobs: Any,
) -> AsyncIterator[Fleet]:
    """With `engines` that count words, if no others are given."""
    settings = {"database_url": f"sqlite+aiosqlite:///{home / 'gateway.db'}", "batch_part_rows": 4, "batch_texts": 2}
    async with open_gateway(home, bootstrap, tasks=tasks, **settings, **knobs) as gateway:
        parts = ReplicaUnderTest(clock=SystemClock())
        log = LogWriter(
            Logging(REPLICA, gateway.writer, SystemClock(), SystemIds(), seconds=0.05, records=100, capacity=1_000)
        )
        ports = replace(
            parts.ports,
            engines=engines or CountingEngines(),
            artifacts=artifacts or parts.artifacts,
            log=log,
            tasks=tasks,
        )
        server, rpc = RpcServer(gateway.keyring, "127.0.0.1", 0, services_only=True), ReplicaRpc(ports, 0.05)
        server.add(replica_pb2_grpc.add_ReplicaServiceServicer_to_server, rpc, SERVICE_NAME)
        await server.open()
        monitor = build_monitor(_monitor_settings(home, bootstrap), Adapters(tasks=tasks))
        running = [asyncio.create_task(monitor.run()), asyncio.create_task(log.run())]
        try:
            await until(lambda: all(check() for check in monitor.checks.values()), "the monitor is ready")
            yield Fleet(gateway, ports, bootstrap, port=server.port)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await rpc.close()
            await server.close()


def _monitor_settings(home: Path, bootstrap: str) -> MonitorSettings:
    port = any_free()
    return MonitorSettings.model_validate(
        {
            "MILLRACE_HOME": home,
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
            "database_url": f"sqlite+aiosqlite:///{home / 'monitor.db'}",
            "http_port": port,
            "grpc_port": any_free({port}),
            "judge_seconds": 0.1,
        }
    )
