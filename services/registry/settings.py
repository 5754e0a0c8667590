"""The registry's knobs: `MILLRACE_REGISTRY_...`."""

from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.contracts.addresses import PORTS
from services.kit.core.settings import ServiceSettings, port


class RegistrySettings(ServiceSettings):
    """How strict the gate is, how careful a rollout, and when a replica counts as gone."""

    model_config = SettingsConfigDict(env_prefix="MILLRACE_REGISTRY_")
    service: ClassVar[str] = "registry"

    http_port: int = port(PORTS["registry"].http, "health and metrics")
    grpc_port: int = port(PORTS["registry"].grpc, "gRPC")
    canary_weights: tuple[int, ...] = Field(default=(10, 50), description="percent for the canary, as JSON: [10, 50]")
    bake_seconds: float = Field(default=60.0, ge=0)
    minimum_requests: int = Field(default=50, ge=0)
    step_timeout_seconds: float = Field(default=3600.0, gt=0)
    load_timeout_seconds: float = Field(
        default=1800.0, gt=0, description="after which a version that too few replicas have ready is given up"
    )
    mirror: float = Field(default=0.5, ge=0, le=1)
    drain_seconds: float = Field(default=30.0, ge=0)
    gate_minimum_test_rows: int = Field(default=100, ge=1)
    gate_margin: float = Field(default=0.03, ge=0, lt=1, description="accuracy a version may lose to the champion")
    gate_floor_margin: float = Field(default=0.03, ge=0, le=1, description="macro-F1 it may lie below TF-IDF")
    gate_alpha: float = Field(default=0.05, gt=0, lt=0.5)
    replica_timeout_seconds: float = Field(default=15.0, gt=0, description="a silent replica counts as gone")
    settle_seconds: float = Field(default=10.0, gt=0, description="after which a replica that is behind is told again")
