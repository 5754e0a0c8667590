"""The gateway's knobs."""

import os
from pathlib import Path
from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.contracts.addresses import PORTS, grpc_address
from services.kit.core.settings import ServiceSettings, port


class GatewaySettings(ServiceSettings):
    """`MILLRACE_GATEWAY_...`; `http_port` is that of REST, `grpc_port` that of gRPC."""

    model_config = SettingsConfigDict(env_prefix="MILLRACE_GATEWAY_", frozen=True, extra="ignore")
    service: ClassVar[str] = "gateway"

    http_port: int = port(PORTS["gateway"].http, "REST, health and metrics")
    grpc_port: int = port(PORTS["gateway"].grpc, "gRPC")
    registry_address: str = Field(default=grpc_address("registry"), description="host:port of the registry's gRPC")
    trainer_address: str = Field(default=grpc_address("trainer"), description="host:port of the trainer's gRPC")
    monitor_address: str = Field(default=grpc_address("monitor"), description="host:port of the monitor's gRPC")
    allowed_hosts: str = Field(
        default="localhost,127.0.0.1,::1", description="names this gateway may be called by, comma-separated"
    )
    body_limit_bytes: int = Field(default=1_048_576, ge=1_024, le=67_108_864)
    batch_body_limit_bytes: int = Field(
        default=8_388_608, ge=1_024, le=67_108_864, description="the same for requests of up to 2,048 texts (/v1)"
    )
    body_seconds: float = Field(default=10.0, gt=0, description="within which a request's body must arrive")
    upload_limit_bytes: int = Field(
        default=268_435_456, ge=1_024, le=4_294_967_295, description="the largest data set that may be uploaded"
    )
    upload_chunk_seconds: float = Field(default=30.0, gt=0, description="the longest between two parts of an upload")
    upload_seconds: float = Field(default=3_600.0, gt=0, description="the longest an upload may take")
    upload_limit: int = Field(default=4, ge=1, le=1_000, description="uploads under way at once; then 429")
    text_limit_chars: int = Field(default=10_000, ge=1, le=1_000_000)
    request_seconds: float = Field(default=30.0, gt=0, description="the longest any request but a log may take")
    stream_seconds: float = Field(
        default=300.0,
        gt=0,
        le=3_600,
        description="the longest an answer that is generated may take; its first token"
        " must be there within request_seconds",
    )
    follow_seconds: float = Field(default=3_600.0, gt=0, description="the longest a log is followed")
    attempt_seconds: float = Field(default=10.0, gt=0, description="the longest one replica is waited for")
    ready_wait_seconds: float = Field(default=5.0, ge=0, description="the longest a request waits for a ready replica")
    stale_after_seconds: float = Field(default=15.0, gt=0, description="a replica silent for longer is asked last")
    chunks_at_once: int = Field(
        default=4, ge=1, le=64, description="chunks of 64 texts that one request may have under way"
    )
    mirror_limit: int = Field(default=64, ge=1, description="mirrored requests under way at once")
    outbox_limit: int = Field(default=100_000, ge=1, description="events kept while the broker is away; then 503")
    async_concurrency: int = Field(
        default=16, ge=1, le=1_024, description="requests of inference.requested that are with the replicas at once"
    )
    async_tenant_concurrency: int = Field(default=8, ge=1, le=1_024, description="of those, the ones of one tenant")
    async_ready_wait_seconds: float = Field(
        default=60.0, ge=0, description="the longest such a request waits for a deployment that is not ready"
    )
    async_held: int = Field(default=256, ge=1, le=10_000, description="such requests taken from the topic at once")
    async_held_bytes: int = Field(default=33_554_432, ge=1_048_576, description="and their size together")
    data_roots: str = Field(
        default="", description="folders that batches may read, separated as in PATH; datasets/ and demo/ of home"
    )
    results_store: str = Field(default="", description="fsspec URL that batches write to; a folder of home when empty")
    batch_bytes: int = Field(default=256 * 1024 * 1024, ge=1_024, description="the largest file of a batch")
    batch_rows: int = Field(default=500_000, ge=1, description="the most rows of a batch")
    batch_part_rows: int = Field(default=256, ge=1, le=10_000, description="rows that are written and kept together")
    batch_texts: int = Field(default=16, ge=1, le=64, description="rows of a batch that are asked about at once")
    batch_requests: int = Field(default=2, ge=1, le=64, description="requests of all batches under way at once")
    batch_yields_at: int = Field(
        default=8, ge=1, description="waiting requests of a replica from which on it gets none of a batch's"
    )
    batch_ready_wait_seconds: float = Field(
        default=600.0, ge=0, description="the longest a batch waits for a deployment that is not ready"
    )
    batch_workers: int = Field(default=1, ge=1, le=16, description="batches that this gateway works on at once")
    batch_lease_seconds: float = Field(default=10.0, gt=0, description="after which a silent worker's batch passes on")
    batch_limit: int = Field(default=100, ge=1, description="batches of one tenant that have not ended")
    redis_url: str = Field(
        default="",
        pattern=r"^((redis|rediss|unix)://.*)?$",
        description="keeps limits that several gateways share; each its own when empty",
    )
    limit_requests_per_second: float = Field(default=200.0, ge=0, le=1e6, description="a key's; 0 is no limit")
    limit_burst: int = Field(default=400, ge=1, le=1_000_000, description="requests a key may send at once")
    limit_concurrent: int = Field(default=64, ge=0, le=1_000_000, description="a key's requests under way; 0: no limit")
    limit_tokens_per_minute: int = Field(default=1_000_000, ge=0, le=10**9, description="a key's; 0 is no limit")
    limit_admin_factor: int = Field(default=50, ge=1, le=1_000, description="how many times that an admin's key has")
    trace_ratio: float = Field(
        default=0.01, ge=0, le=1, description="share of classifications traced whose caller is not traced"
    )

    def roots(self) -> tuple[Path, ...]:
        """Resolved, so that a link cannot lead out of them."""
        named = [Path(name) for name in self.data_roots.split(os.pathsep) if name]
        return tuple(root.resolve() for root in named or (self.home / "datasets", self.home / "demo"))

    def results_root(self) -> str:
        return self.results_store or f"file://{self.home.resolve() / 'results'}"

    def hosts(self) -> list[str]:
        return [name.strip() for name in self.allowed_hosts.split(",") if name.strip()]
