"""The gateway's knobs."""

from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.gateway.ports import Policy
from services.kit.settings import ServiceSettings


class GatewaySettings(ServiceSettings):
    """`MILLRACE_GATEWAY_...`; `http_port` is the REST door, `grpc_port` the gRPC door."""

    model_config = SettingsConfigDict(env_prefix="MILLRACE_GATEWAY_", frozen=True, extra="ignore")
    service: ClassVar[str] = "gateway"

    registry_address: str = Field(default="127.0.0.1:7102", description="host:port of the registry's gRPC door")
    trainer_address: str = Field(default="127.0.0.1:7103", description="host:port of the trainer's gRPC door")
    monitor_address: str = Field(default="127.0.0.1:7104", description="host:port of the monitor's gRPC door")
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
    follow_seconds: float = Field(default=3_600.0, gt=0, description="the longest a log is followed")
    attempt_seconds: float = Field(default=10.0, gt=0, description="the longest one replica is waited for")
    ready_wait_seconds: float = Field(default=5.0, ge=0, description="the longest a request waits for a ready replica")
    stale_after_seconds: float = Field(default=15.0, gt=0, description="a replica silent for longer is asked last")
    chunks_at_once: int = Field(
        default=4, ge=1, le=64, description="chunks of 64 texts that one request may have under way"
    )
    mirror_limit: int = Field(default=64, ge=1, description="mirrored requests under way at once")
    outbox_limit: int = Field(default=100_000, ge=1, description="events kept while the broker is away; then 503")
    trace_ratio: float = Field(
        default=0.01, ge=0, le=1, description="share of classifications traced whose caller is not traced"
    )

    def policy(self) -> Policy:
        return Policy(
            text_limit_chars=self.text_limit_chars,
            ready_wait_seconds=self.ready_wait_seconds,
            outbox_limit=self.outbox_limit,
            chunks_at_once=self.chunks_at_once,
            upload_limit_bytes=self.upload_limit_bytes,
        )

    def hosts(self) -> list[str]:
        return [name.strip() for name in self.allowed_hosts.split(",") if name.strip()]
