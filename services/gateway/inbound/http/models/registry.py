"""The wire models of `millrace/v1/registry.proto`, generated: change the .proto, and run `make contracts`."""

from typing import Annotated

from pydantic import ConfigDict, Field

from services.gateway.inbound.http.models.fragments import Artifact, HistoryEntry, SliceScore, Variant
from services.gateway.inbound.http.wire_model import (
    NOT_EMPTY,
    Absent,
    BodyModel,
    PagedQueryModel,
    QueryBool,
    QueryModel,
    QueryUInt32,
    ResponseModel,
    Text,
    Timestamp,
    UInt32,
)


class ListModelsQuery(PagedQueryModel):
    page_size: QueryUInt32 = Field(default_factory=int, examples=[50])
    page_token: Text = Field(default_factory=str, examples=[""])


class GateCheck(ResponseModel):
    name: str = Field(examples=["regression"])
    passed: bool = Field(examples=[True])
    detail: str = Field(examples=["no worse than version 2 by more than 0.02"])
    value: float = Field(examples=[0.004])
    limit: float = Field(examples=[0.02])


class Gate(ResponseModel):
    """What the gate said, check by check."""

    passed: bool = Field(examples=[True])
    checks: list[GateCheck]


class Version(ResponseModel):
    model: str = Field(examples=["topics"])
    number: UInt32 = Field(examples=[3])
    status: str = Field(description=("registered, passed, refused"), examples=["passed"])
    artifact: Artifact | Absent = Field(default=None)
    precision: str = Field(examples=["int8"])
    run: str = Field(examples=["run-01k9rm50a1s2d3f4g5h6j7k8m9"])
    dataset: str = Field(examples=["docstrings-2026-11"])
    data_hash: str = Field(examples=["80a00f0b51c6d51dc228b0b2b1f4fb3a510da55c0aaef2a956d7c488180d68f9"])
    code_version: str = Field(examples=["0.1.0"])
    base_model: str = Field(examples=["all-MiniLM-L6-v2"])
    parent: UInt32 = Field(examples=[2])
    slices: list[SliceScore]
    tfidf_macro_f1: float = Field(examples=[0.772])
    variants: list[Variant]
    gate: Gate | Absent = Field(default=None)
    registered_at: Timestamp | Absent = Field(default=None, examples=["2026-11-03T12:04:38Z"])
    aliases: list[str] = Field(examples=[["champion"]])


class Model(ResponseModel):
    name: str = Field(examples=["topics"])
    versions: list[Version]
    aliases: dict[str, UInt32] = Field(examples=[{"champion": 3}])
    dry_run: bool | Absent = Field(
        default=None, description=("nothing was kept: this is what would be"), examples=[False]
    )


class ListModelsResponse(ResponseModel):
    models: list[Model]
    next_page_token: str = Field(examples=[""])


class ListVersionsQuery(PagedQueryModel):
    status: Text = Field(
        default_factory=str, description=("registered, passed, refused; empty for all."), examples=["passed"]
    )
    page_size: QueryUInt32 = Field(default_factory=int, examples=[50])
    page_token: Text = Field(default_factory=str, examples=[""])


class ListVersionsResponse(ResponseModel):
    versions: list[Version] = Field(description=("newest first"))
    next_page_token: str = Field(examples=[""])


class SetAliasRequest(BodyModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"version": 3, "reason": "to be tried on the side"}]})
    version: Annotated[UInt32, NOT_EMPTY] = Field(examples=[3])
    reason: Text | None = Field(default=None, examples=["better on the new sources"])
    dry_run: bool | None = Field(default=None, examples=[False])


class ListDeploymentsQuery(PagedQueryModel):
    page_size: QueryUInt32 = Field(default_factory=int, examples=[50])
    page_token: Text = Field(default_factory=str, examples=[""])


class Target(ResponseModel):
    version: UInt32 = Field(examples=[3])
    precision: str = Field(examples=["int8"])
    role: str = Field(examples=["primary"])
    weight: UInt32 = Field(examples=[100])
    model: str = Field(examples=["topics"])


class Rollout(ResponseModel):
    id: str = Field(examples=["rollout-01k9rm6h2d4f8s0a1q3w5e7r9t"])
    version: UInt32 = Field(examples=[3])
    state: str = Field(description=("pending, loading, canary, promoted, rolled_back, paused"), examples=["promoted"])
    step: UInt32 = Field(examples=[1])
    weights: list[UInt32] = Field(examples=[[10, 50]])
    actor: str = Field(examples=["operator:1f0c9a2e"])
    reason: str = Field(examples=["better on the new sources"])
    started_at: Timestamp | Absent = Field(default=None, examples=["2026-11-03T12:05:02Z"])
    changed_at: Timestamp | Absent = Field(default=None, examples=["2026-11-03T12:09:40Z"])
    evidence_json: str = Field(
        examples=['[{"indicator":"correctness","pairs":214,"candidate":0.86,"champion":0.85,"decision":"safe"}]']
    )
    model: str = Field(examples=["topics"])
    waits_for: str | Absent = Field(
        default=None,
        description=("While replicas load the version: how many must still have it ready, and what each says."),
        examples=["1 more of 1 replicas must have it ready: inference-0 loading"],
    )


class Placement(ResponseModel):
    """Which replicas load a deployment."""

    replicas: UInt32 = Field(description=("how many; 0: every one that fits"), examples=[2])
    device: str = Field(description=("cpu or cuda; empty: any"), examples=["cpu"])
    quorum: UInt32 = Field(description=("how many must be ready before traffic moves; 0: more than half"), examples=[0])


class RolloutPolicy(BodyModel):
    weights: list[UInt32] | None = Field(
        default=None, description=("percent for the canary, step by step; none: unset"), examples=[[10, 50]]
    )
    bake_seconds: float | None = Field(default=None, examples=[30.0])
    minimum_requests: UInt32 | None = Field(default=None, examples=[200])
    step_timeout_seconds: float | None = Field(default=None, examples=[3600.0])
    mirror: float | None = Field(default=None, examples=[0.5])
    drain_seconds: float | None = Field(
        default=None, description=("how long a replaced version stays loaded"), examples=[30.0]
    )
    load_timeout_seconds: float | None = Field(
        default=None,
        description=("After which a version that too few replicas have ready is given up, where another serves."),
        examples=[1800.0],
    )


class VersionName(ResponseModel):
    model: str = Field(examples=["topics"])
    version: UInt32 = Field(examples=[3])


class Deployment(ResponseModel):
    name: str = Field(examples=["topics"])
    model: str = Field(description=("whose versions are rolled out"), examples=["topics"])
    generation: UInt32 = Field(examples=[7])
    version: UInt32 = Field(description=("that serves; 0 while none does"), examples=[3])
    targets: list[Target]
    rollout: Rollout | Absent = Field(default=None, description=("the latest one"))
    stopped: bool = Field(description=("by a person; the next rollout brings it back"), examples=[False])
    dry_run: bool | Absent = Field(
        default=None, description=("nothing was kept: this is what would be"), examples=[False]
    )
    serving_model: str = Field(description=("whose version serves; empty while none does"), examples=["topics"])
    placement: Placement | Absent = Field(default=None)
    policy: RolloutPolicy | Absent = Field(default=None, description=("of its rollouts, where it has one of its own"))
    approval: str = Field(
        description=("none; manual: a rollout that the registry starts by itself waits until a person approves it."),
        examples=["none"],
    )
    automatic: bool = Field(
        description=("a version of the model that passed its gate is rolled out by itself"), examples=[True]
    )
    compare: bool = Field(description=("a version must have been compared with the one that serves"), examples=[True])
    aliases: dict[str, VersionName] = Field(
        description=("champion, previous, challenger"), examples=[{"champion": {"model": "topics", "version": 3}}]
    )
    deleted: bool | Absent = Field(default=None, examples=[False])


class ListDeploymentsResponse(ResponseModel):
    deployments: list[Deployment]
    next_page_token: str = Field(examples=[""])


class CreateDeploymentRequest(BodyModel):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"deployment": "staging", "model": "topics", "replicas": 1, "compare": False}]}
    )
    deployment: Annotated[Text, NOT_EMPTY] = Field(examples=["topics"])
    model: Annotated[Text, NOT_EMPTY] = Field(examples=["topics"])
    replicas: UInt32 | None = Field(default=None, examples=[2])
    device: Text | None = Field(default=None, description=("cpu or cuda; any where it is unset."), examples=["cpu"])
    quorum: UInt32 | None = Field(default=None, examples=[0])
    policy: RolloutPolicy | None = Field(default=None, description=("Unset fields take the registry's policy."))
    approval: Text | None = Field(default=None, description=("none or manual."), examples=["none"])
    automatic: bool | None = Field(default=None, examples=[True])
    compare: bool | None = Field(default=None, examples=[True])
    reason: Text | None = Field(default=None, examples=["better on the new sources"])
    dry_run: bool | None = Field(default=None, examples=[False])


class UpdateDeploymentRequest(BodyModel):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"replicas": 2, "approval": "manual", "policy": {"weights": [5, 25, 50]}}]}
    )
    model: Text | None = Field(default=None, examples=["topics"])
    replicas: UInt32 | None = Field(default=None, examples=[2])
    device: Text | None = Field(default=None, description=("cpu, cuda or any."), examples=["cpu"])
    quorum: UInt32 | None = Field(default=None, examples=[0])
    policy: RolloutPolicy | None = Field(default=None, description=("Unset fields stay as they are."))
    approval: Text | None = Field(default=None, description=("none or manual."), examples=["none"])
    automatic: bool | None = Field(default=None, examples=[True])
    compare: bool | None = Field(default=None, examples=[True])
    reason: Text | None = Field(default=None, examples=["better on the new sources"])
    dry_run: bool | None = Field(default=None, examples=[False])
    expected_generation: UInt32 | None = Field(
        default=None, description=("Refused unless the deployment is at this generation."), examples=[7]
    )


class StartRolloutRequest(BodyModel):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"version": "3", "policy": {"weights": [10, 50], "bake_seconds": 60.0}}]}
    )
    version: Annotated[Text, NOT_EMPTY] = Field(description=("A number, or an alias."), examples=["3"])
    skip_gate: bool | None = Field(default=None, examples=[False])
    reason: Text | None = Field(default=None, examples=["better on the new sources"])
    dry_run: bool | None = Field(default=None, examples=[False])
    policy: RolloutPolicy | None = Field(default=None, description=("Unset fields take the registry's policy."))
    expected_generation: UInt32 | None = Field(
        default=None,
        description=("Refused unless the deployment is at this generation; 0: unless it is not there yet."),
        examples=[7],
    )


class MoveRolloutRequest(BodyModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "complaints about the new version"}]})
    reason: Text | None = Field(default=None, examples=["better on the new sources"])
    dry_run: bool | None = Field(default=None, examples=[False])
    expected_generation: UInt32 | None = Field(
        default=None, description=("Refused unless the deployment is at this generation."), examples=[7]
    )


class ListHistoryQuery(QueryModel):
    stream: Text = Field(
        default_factory=str,
        description=("`model/NAME` or `deployment/NAME`; empty for all of it."),
        examples=["model/topics"],
    )
    after_sequence: QueryUInt32 = Field(
        default_factory=int, description=("Facts with a greater number alone."), examples=[41]
    )
    page_size: QueryUInt32 = Field(default_factory=int, description=("at most 200; 0 means 50"), examples=[50])
    kind: Text = Field(default_factory=str, description=("Such as rollout_promoted."), examples=["rollout_promoted"])
    actor: Text = Field(
        default_factory=str, description=("As it stands in the entries."), examples=["operator:1f0c9a2e"]
    )
    since: Timestamp = Field(default_factory=str, description=("at or after"), examples=["2026-11-03T00:00:00Z"])
    until: Timestamp = Field(default_factory=str, description=("before"), examples=["2026-11-04T00:00:00Z"])
    newest_first: QueryBool = Field(default_factory=bool, examples=[False])
    page_token: Text = Field(default_factory=str, examples=[""])
    whole_chain: QueryBool = Field(
        default_factory=bool,
        description=(
            "The chain of all tenants, without filters: of other tenants' facts the numbers and hashes alone."
        ),
        examples=[False],
    )


class ListHistoryResponse(ResponseModel):
    entries: list[HistoryEntry]
    next_page_token: str = Field(examples=[""])


class HistoryHead(ResponseModel):
    sequence: UInt32 = Field(examples=[42])
    hash: str = Field(examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"])


class GetLineageQuery(QueryModel):
    as_of: Timestamp = Field(
        default_factory=str, description=("The state at that time; unset: now."), examples=["2026-11-03T12:10:00Z"]
    )


class LineageNode(ResponseModel):
    id: str = Field(description=("such as version/topics/2"), examples=["version/topics/3"])
    kind: str = Field(
        description=("dataset, base_model, run, drift, version, gate, rollout, deployment, alias"), examples=["version"]
    )
    label: str = Field(examples=["topics 3"])
    at: Timestamp | Absent = Field(
        default=None, description=("unset where the history does not say"), examples=["2026-11-03T12:05:02Z"]
    )
    facts: dict[str, str] = Field(examples=[{"precision": "int8", "status": "passed"}])
    evidence_json: str = Field(
        examples=['[{"indicator":"correctness","pairs":214,"candidate":0.86,"champion":0.85,"decision":"safe"}]']
    )


class LineageEdge(ResponseModel):
    source: str = Field(examples=["run/run-01k9rm50a1s2d3f4g5h6j7k8m9"])
    target: str = Field(examples=["version/topics/3"])
    relation: str = Field(
        description=(
            "read_by, began_from, asked_for, produced, parent_of, judged_by, rolled_out, served, held, drifted"
        ),
        examples=["produced"],
    )


class Lineage(ResponseModel):
    """A version's past and future: every edge leads from what came first to what came of it."""

    model: str = Field(examples=["topics"])
    version: UInt32 = Field(examples=[3])
    nodes: list[LineageNode]
    edges: list[LineageEdge]
