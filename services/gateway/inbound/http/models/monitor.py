"""The wire models of `millrace/v1/monitor.proto`, generated: change the .proto, and run `make contracts`."""

from pydantic import Field

from services.gateway.inbound.http.models.fragments import Interval
from services.gateway.inbound.http.wire_model import (
    Absent,
    QueryModel,
    QueryUInt32,
    ResponseModel,
    Text,
    Timestamp,
    UInt32,
)


class VersionHealth(ResponseModel):
    version: UInt32 = Field(examples=[3])
    requests: UInt32 = Field(examples=[4213])
    errors: UInt32 = Field(examples=[2])
    latency_p50_ms: float = Field(examples=[6.1])
    latency_p99_ms: float = Field(examples=[18.4])
    labelled: UInt32 = Field(examples=[120])
    accuracy: float = Field(examples=[0.861])
    accuracy_ci95: Interval | Absent = Field(default=None)


class DeploymentHealth(ResponseModel):
    deployment: str = Field(examples=["topics"])
    versions: list[VersionHealth]


class ListWindowsQuery(QueryModel):
    page_size: QueryUInt32 = Field(default_factory=int, description=("at most 200; 0 means 50"), examples=[50])
    version: QueryUInt32 = Field(default_factory=int, description=("0 for all"), examples=[3])
    verdict: Text = Field(
        default_factory=str, description=("quiet, suspect, drifted, untested; empty for all"), examples=["quiet"]
    )
    page_token: Text = Field(default_factory=str, examples=[""])


class DriftWindow(ResponseModel):
    number: UInt32 = Field(examples=[3])
    version: UInt32 = Field(examples=[3])
    rows: UInt32 = Field(examples=[200])
    statistic: float = Field(examples=[0.0031])
    p_value: float = Field(examples=[0.41])
    verdict: str = Field(description=("quiet, suspect, drifted, untested"), examples=["quiet"])
    opened_at: Timestamp | Absent = Field(default=None, examples=["2026-11-03T12:19:12Z"])
    closed_at: Timestamp | Absent = Field(default=None, examples=["2026-11-03T12:20:00Z"])
    test: str = Field(description=("mmd-rbf; empty where it could not be tested"), examples=["mmd-rbf"])
    bandwidth: float = Field(examples=[1.27])
    baseline_rows: UInt32 = Field(examples=[500])
    window_rows: UInt32 = Field(description=("of the window that were tested"), examples=[200])
    permutations: UInt32 = Field(examples=[200])
    answered: UInt32 = Field(
        description=("requests since the window before, those not sampled among them"), examples=[214]
    )
    variant: str = Field(description=("whose traffic it is: fp32, fp16, int8 or int4"), examples=["int8"])
    reason: str = Field(description=("why it could not be tested"), examples=[""])


class ListWindowsResponse(ResponseModel):
    windows: list[DriftWindow] = Field(description=("newest first"))
    next_page_token: str = Field(examples=[""])


class ListVerdictsQuery(QueryModel):
    page_size: QueryUInt32 = Field(default_factory=int, description=("at most 200; 0 means 50"), examples=[50])
    version: QueryUInt32 = Field(default_factory=int, description=("0 for all"), examples=[3])
    verdict: Text = Field(
        default_factory=str, description=("promote, hold, roll_back; empty for all"), examples=["promote"]
    )
    rollout: Text = Field(default_factory=str, examples=["rollout-01k9rm6h2d4f8s0a1q3w5e7r9t"])
    page_token: Text = Field(default_factory=str, examples=[""])


class CanaryVerdict(ResponseModel):
    rollout: str = Field(examples=["rollout-01k9rm6h2d4f8s0a1q3w5e7r9t"])
    version: UInt32 = Field(examples=[3])
    step: UInt32 = Field(examples=[1])
    verdict: str = Field(examples=["promote"])
    reason: str = Field(examples=["no worse on any indicator"])
    requests: UInt32 = Field(examples=[4213])
    evidence_json: str = Field(
        examples=['[{"indicator":"correctness","pairs":214,"candidate":0.86,"champion":0.85,"decision":"safe"}]']
    )
    at: Timestamp | Absent = Field(default=None, examples=["2026-11-03T12:05:02Z"])


class ListVerdictsResponse(ResponseModel):
    verdicts: list[CanaryVerdict] = Field(description=("newest first"))
    next_page_token: str = Field(examples=[""])
