"""The gateway's knobs."""

from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.gateway.domain.limits import LimitRules, Limits
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
    body_seconds: float = Field(default=10.0, gt=0, description="within which a request's body must arrive")
    text_limit_chars: int = Field(default=10_000, ge=1, le=1_000_000)
    request_seconds: float = Field(default=30.0, gt=0, description="the longest any request but a log may take")
    follow_seconds: float = Field(default=3_600.0, gt=0, description="the longest a log is followed")
    attempt_seconds: float = Field(default=10.0, gt=0, description="the longest one replica is waited for")
    ready_wait_seconds: float = Field(default=5.0, ge=0, description="the longest a request waits for a ready replica")
    stale_after_seconds: float = Field(default=15.0, gt=0, description="a replica silent for longer is asked last")
    mirror_limit: int = Field(default=64, ge=1, description="mirrored requests under way at once")
    outbox_limit: int = Field(default=100_000, ge=1, description="events kept while the broker is away; then 503")
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

    def policy(self) -> Policy:
        return Policy(
            text_limit_chars=self.text_limit_chars,
            ready_wait_seconds=self.ready_wait_seconds,
            outbox_limit=self.outbox_limit,
        )

    def limits(self) -> LimitRules:
        usual = Limits(
            requests_per_second=self.limit_requests_per_second,
            burst=self.limit_burst,
            concurrent=self.limit_concurrent,
            tokens_per_minute=self.limit_tokens_per_minute,
        )
        return LimitRules(usual=usual, admin_factor=self.limit_admin_factor)

    def hosts(self) -> list[str]:
        return [name.strip() for name in self.allowed_hosts.split(",") if name.strip()]
