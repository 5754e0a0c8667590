"""The monitor's knobs. Units stand in the names; the defaults are the measured ones."""

from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.contracts.addresses import PORTS
from services.kit.core.settings import ServiceSettings, port


class MonitorSettings(ServiceSettings):
    """`MILLRACE_MONITOR_...`"""

    model_config = SettingsConfigDict(env_prefix="MILLRACE_MONITOR_", frozen=True, extra="ignore")
    service: ClassVar[str] = "monitor"

    http_port: int = port(PORTS["monitor"].http, "health and metrics")
    grpc_port: int = port(PORTS["monitor"].grpc, "gRPC")
    window_rows: int = Field(default=200, ge=20, le=5_000, description="different inputs a window")
    permutations: int = Field(default=200, ge=20, le=10_000)
    drift_alpha: float = Field(default=0.01, gt=0, le=0.2, description="a window at or below it is suspect")
    consecutive_windows: int = Field(default=2, ge=1, le=20, description="suspect windows in a row that are drift")
    baseline_rows: int = Field(default=500, ge=50, le=5_000, description="a larger baseline is thinned to these")

    verdict_alpha: float = Field(default=0.01, gt=0, le=0.2, description="error rate of each indicator's test")
    minimum_requests: int = Field(default=30, ge=0, description="the candidate's in a step before it is promoted")
    require_labels: bool = Field(default=True, description="only labelled feedback promotes")
    correctness_margin: float = Field(default=0.08, gt=0, lt=1, description="loss of accuracy that is tolerated")
    errors_tolerance: float = Field(default=0.01, ge=0, lt=1, description="more errors than this are worse")
    errors_margin: float = Field(default=0.05, gt=0, lt=1)
    latency_tolerance: float = Field(default=0.05, ge=0, lt=1, description="more slow answers than this are worse")
    latency_margin: float = Field(default=0.10, gt=0, lt=1)
    judge_seconds: float = Field(default=0.5, ge=0, description="the least time between two looks at a canary")
    repeat_seconds: float = Field(default=2.0, gt=0, description="how often a growing promotion is published again")

    slow_ms: float = Field(default=500.0, gt=0, description="an answer above it is slow")
    good_errors_share: float = Field(default=0.99, gt=0, lt=1, description="promised share without error")
    good_latency_share: float = Field(default=0.95, gt=0, lt=1, description="promised share that is not slow")
    fast_burn: float = Field(default=14.4, gt=0, description="burn rate in both windows that is a breach")
    burn_long_seconds: float = Field(default=3600.0, ge=60)
    burn_short_seconds: float = Field(default=300.0, ge=60)
    burn_minimum_requests: int = Field(default=50, ge=1)
    maintenance_seconds: float = Field(default=15.0, gt=0, description="between two checks of the objectives")
    health_seconds: float = Field(default=3600.0, ge=60, description="how far back health looks")

    answer_hours: float = Field(default=24.0, gt=0, description="how long answers wait for their labels")
    answers: int = Field(default=50_000, ge=1_000, description="kept of a deployment")
    minute_hours: float = Field(default=24.0, gt=0)
    inbox_hours: float = Field(default=72.0, gt=0, description="how long a repeated batch is recognised")
    windows: int = Field(default=500, ge=10, description="kept of a deployment")
    verdicts: int = Field(default=500, ge=10, description="kept of a deployment")
    chunk_records: int = Field(default=1_000, ge=1, description="records a transaction")
