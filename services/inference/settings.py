"""What can be set of inference, as MILLRACE_INFERENCE_...; units are in the names."""

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from services.contracts.addresses import PORTS
from services.contracts.names import ReplicaId
from services.kit.core.settings import ServiceSettings, port


class InferenceSettings(ServiceSettings):
    """One replica."""

    model_config = SettingsConfigDict(env_prefix="MILLRACE_INFERENCE_", frozen=True, extra="ignore")
    service: ClassVar[str] = "inference"

    http_port: int = port(PORTS["inference"].http, "health and metrics")
    grpc_port: int = port(PORTS["inference"].grpc, "gRPC")
    replica: ReplicaId = Field(default="inference-0", description="this replica's name; no two may share one")
    advertised_host: str = Field(default="", description="what others reach it by; the host it listens on when empty")

    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto takes CUDA where there is a device"
    )
    workers: int = Field(default=0, ge=0, le=256, description="engine threads; 0: one a core, or 2 on CUDA")
    batch_rows: int = Field(default=0, ge=0, le=1024, description="texts of a batch; 0: 8 on a CPU, 64 on CUDA")
    batch_tokens: int = Field(
        default=0, ge=0, le=1_048_576, description="tokens of a batch, padding included; 0: 1,024 or 32,768"
    )
    batch_padding: float = Field(default=0.08, ge=0, le=1, description="share of a batch that may be padding")
    capacity_texts: int = Field(default=512, ge=64, le=100_000, description="texts held before more are refused")
    characters_per_token: int = Field(
        default=32, ge=4, le=10_000, description="a text longer than this times the model's tokens is refused"
    )

    generation_rows: int = Field(default=16, ge=1, le=1024, description="answers that are generated at once, a model")
    generation_cache_tokens: int = Field(
        default=16_384, ge=256, le=16_777_216, description="tokens that prompts and answers under way may take, a model"
    )
    generation_waiting: int = Field(default=256, ge=1, le=100_000, description="answers that may wait, a model")
    generation_answer_tokens: int = Field(
        default=1_024, ge=1, le=1_048_576, description="limit of an answer whose request sets none"
    )
    generation_prefix_cache_mib: int = Field(
        default=256, ge=0, le=1_048_576, description="memory for prompts that were computed before, a model; 0: none"
    )
    generation_threads: int = Field(default=0, ge=0, le=256, description="that compute a step; 0: one a core")

    check_seconds: float = Field(default=120.0, gt=0, le=3600, description="limit on checking one artifact")
    drain_grace_seconds: float = Field(
        default=5.0, ge=0, le=3600, description="how long an unwanted version must have been idle to be unloaded"
    )
    heartbeat_seconds: float = Field(default=3.0, gt=0, le=300, description="between two reports without a change")
    peer_timeout_seconds: float = Field(
        default=15.0, gt=0, le=3600, description="after which another replica that reports no more is taken for gone"
    )
    load_seconds: float = Field(default=0.5, gt=0, le=60, description="between two messages of load on a stream")

    log_seconds: float = Field(default=0.5, gt=0, le=1, description="an answer waits at most this long to be logged")
    log_records: int = Field(default=100, ge=1, le=1000, description="records of one inference.logged event")
    log_capacity: int = Field(default=20_000, ge=1, description="answers kept while the broker is away")
    log_text: float = Field(default=1.0, ge=0, le=1, description="share of requests whose text is logged")
    log_embedding: float = Field(default=1.0, ge=0, le=1, description="share of requests whose embedding is logged")

    @property
    def data_folder(self) -> Path:
        """Of this replica: several may share a machine and its home."""
        return super().data_folder / self.replica

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.host in ("0.0.0.0", "::") and not self.advertised_host:  # noqa: S104 - compared, not bound
            raise ValueError("a replica that listens everywhere needs MILLRACE_INFERENCE_ADVERTISED_HOST")
        return self
