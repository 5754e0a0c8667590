"""Wiring, and only wiring."""

import random
from collections.abc import Mapping

from services.contracts.rpc import gateway_pb2_grpc, inference_pb2_grpc, keys_pb2_grpc, open_inference_pb2_grpc
from services.gateway.domain.routing import RoutingTable
from services.gateway.inbound.events import subscriptions
from services.gateway.inbound.http.body import BodyLimits
from services.gateway.inbound.http.control import ControlDoor
from services.gateway.inbound.http.door import Health, RestDoor
from services.gateway.inbound.http.inference import InferenceDoor
from services.gateway.inbound.http.own import OwnFace
from services.gateway.inbound.http.routes import GATEWAY, INFERENCE, KEYS, MONITOR, REGISTRY, TRAINER
from services.gateway.inbound.oip import rest as oip_rest
from services.gateway.inbound.oip import rpc as oip_rpc
from services.gateway.inbound.oip.models import Models
from services.gateway.inbound.oip.repository import Repository
from services.gateway.inbound.rpc import Forwarder, GatewayRpc, InferenceRpc, KeyRpc
from services.gateway.inbound.sampling import Sampler
from services.gateway.openapi import document
from services.gateway.outbound.keyring import KeyringThread
from services.gateway.outbound.limits import MemoryLimits
from services.gateway.outbound.replicas import MirrorLane, ReplicaLines
from services.gateway.outbound.store import MIGRATIONS, store
from services.gateway.outbound.upstreams import ServiceLines
from services.gateway.ports import Limiter, Ports
from services.gateway.settings import GatewaySettings
from services.kit.bus.stream import LatestReader
from services.kit.keys import KeyringFile
from services.kit.rpc import RpcServer
from services.kit.service import Service
from services.kit.sql.database import Database


def build(settings: GatewaySettings) -> Service:
    service = Service(settings)
    database = Database(settings.sql_url(), MIGRATIONS)
    replicas = ReplicaLines(key=service.service_key, clock=service.clock, attempt_seconds=settings.attempt_seconds)
    mirrors = MirrorLane(replicas, limit=settings.mirror_limit)
    upstreams = ServiceLines(
        {
            REGISTRY.full_name: settings.registry_address,
            TRAINER.full_name: settings.trainer_address,
            MONITOR.full_name: settings.monitor_address,
        }
    )
    ports = Ports(
        store=store(database, service.clock, service.ids),
        clock=service.clock,
        ids=service.ids,
        routes=RoutingTable(stale_after_seconds=settings.stale_after_seconds),
        routes_read=lambda: reader.caught_up.is_set(),  # noqa: PLW0108 - the reader is made below, and needs the ports
        replicas=replicas,
        mirrors=mirrors,
        keys=KeyringThread(KeyringFile(settings.keys_folder, service.clock)),
        generator=random.Random(service.ids.seed()),
        policy=settings.policy(),
    )
    reader = LatestReader(
        {subscription.event: subscription.handle for subscription in subscriptions(ports)},
        bootstrap_servers=settings.kafka_bootstrap_servers,
        client="millrace-gateway",
        clock=service.clock,
    )
    service.checks["routes"] = reader.caught_up.is_set
    service.database(database)
    service.part("upstreams", close=upstreams.close)
    service.part("replicas", close=replicas.close)
    service.part("mirrors", close=mirrors.close)
    service.runs("routes", reader.run)
    _open_doors(service, settings, ports, upstreams)
    return service


def _open_doors(service: Service, settings: GatewaySettings, ports: Ports, upstreams: ServiceLines) -> None:
    limiter = _limiter(service, settings)
    sampler = Sampler(settings.trace_ratio, ports.generator)
    limits = BodyLimits(bytes=settings.body_limit_bytes, seconds=settings.body_seconds)
    seconds, follow = settings.request_seconds, settings.follow_seconds
    rpc = service.grpc(gate=limiter, receive_bytes=settings.body_limit_bytes)
    rpc.add(gateway_pb2_grpc.add_GatewayServiceServicer_to_server, GatewayRpc(ports), GATEWAY.full_name)
    inference = InferenceRpc(ports, sampler, limiter, request_seconds=seconds)
    rpc.add(inference_pb2_grpc.add_InferenceServiceServicer_to_server, inference, INFERENCE.full_name)
    rpc.add(keys_pb2_grpc.add_KeyServiceServicer_to_server, KeyRpc(ports), KEYS.full_name)
    forwarder = Forwarder((REGISTRY, TRAINER, MONITOR), upstreams, request_seconds=seconds, follow_seconds=follow)
    rpc.add_generic([forwarder], [REGISTRY.full_name, TRAINER.full_name, MONITOR.full_name])
    hot = InferenceDoor(ports, sampler, limits)
    control = ControlDoor(ports, upstreams, limits, follow_seconds=follow)
    own = OwnFace(hot, control, document)
    open_inference, health = _open_inference(service, settings, ports, upstreams, rpc, sampler, limits, limiter=limiter)
    door = RestDoor(
        service.keyring,
        limiter,
        settings.hosts(),
        own,
        faces={"v2": open_inference},
        health=health,
        clock=service.clock,
        request_seconds=seconds,
    )
    service.http(door)


def _limiter(service: Service, settings: GatewaySettings) -> Limiter:
    memory = MemoryLimits(settings.limits(), service.clock)
    if not settings.redis_url:
        return memory
    from services.gateway.outbound.shared_limits import RedisLimits  # only where a Redis is named

    shared = RedisLimits(settings.redis_url, settings.limits(), memory, service.clock, owner=service.ids.new("gateway"))
    service.part("Redis", close=shared.close)
    service.runs("limits", shared.run)
    return shared


def _open_inference(
    service: Service,
    settings: GatewaySettings,
    ports: Ports,
    upstreams: ServiceLines,
    rpc: RpcServer,
    sampler: Sampler,
    limits: BodyLimits,
    *,
    limiter: Limiter,
) -> tuple[oip_rest.Face, Mapping[str, Health]]:
    """The Open Inference Protocol by both doors: its gRPC service is added, its REST face given back."""

    def is_ready() -> bool:
        return all(check() for check in service.checks.values())

    seconds, models = settings.request_seconds, Models(ports)
    repository = Repository(ports, upstreams, models)
    servicer = oip_rpc.OpenInferenceRpc(
        ports, models, repository, sampler, limiter, is_ready=is_ready, request_seconds=seconds
    )
    register = open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server
    rpc.add(register, servicer, oip_rpc.SERVICE.full_name)
    rpc.add_generic([oip_rpc.Unoffered()], [])
    face = oip_rest.Face(ports, models, repository, sampler, limits)
    return face, oip_rest.health(is_ready)
