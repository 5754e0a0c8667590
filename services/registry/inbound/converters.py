"""Between the registry's messages and its domain."""

from enum import StrEnum
from typing import TypeVar

import orjson

from services.contracts.artifact import Device
from services.contracts.placement import Placement
from services.contracts.rpc import common_pb2, registry_pb2
from services.contracts.training import SliceScore
from services.kit.transport.grpc_requests import timestamp
from services.registry.domain import Approval, DeploymentSpec, RolloutPolicy, SpecChanges, VersionRef
from services.registry.domain.lineage import Lineage
from services.registry.domain.policy import PolicyChanges
from services.registry.domain.state import DeploymentView, ModelState, ModelView, Rollout, Served, Version
from services.registry.errors import InvalidSpec
from services.registry.ports import HistoryEntry

C = TypeVar("C", bound=StrEnum)


def model(view: ModelView, *, dry_run: bool = False) -> registry_pb2.Model:
    versions = [version(view, item) for item in reversed(view.state.versions)]
    return registry_pb2.Model(name=view.state.model, versions=versions, aliases=view.aliases, dry_run=dry_run or None)


def version(view: ModelView, item: Version) -> registry_pb2.Version:
    trained = item.trained
    return registry_pb2.Version(
        model=view.state.model,
        number=item.number,
        status=item.status,
        artifact=common_pb2.Artifact(
            uri=item.artifact.uri,
            digest=item.artifact.digest,
            signer=item.artifact.signer,
            size_kib=item.artifact.size_bytes // 1024,
        ),
        precision=item.precision,
        run=trained.run,
        dataset=trained.dataset,
        data_hash=trained.data_hash,
        code_version=trained.code_version,
        base_model=trained.base_model,
        parent=trained.parent or 0,
        slices=[slice_score(part) for part in trained.metrics.slices],
        tfidf_macro_f1=trained.metrics.tfidf_macro_f1,
        variants=[
            common_pb2.Variant(
                precision=variant.precision,
                size_kib=variant.size_bytes // 1024,
                macro_f1=variant.macro_f1,
                agreement=variant.agreement,
                speedup=variant.speedup,
                passed=variant.passed,
                reason=variant.reason,
            )
            for variant in trained.variants
        ],
        gate=_gate(item),
        registered_at=timestamp(item.registered_at),
        aliases=view.aliases_of(item.number),
    )


def slice_score(part: SliceScore) -> common_pb2.SliceScore:
    interval = common_pb2.Interval(low=part.macro_f1_ci95.low, high=part.macro_f1_ci95.high)
    return common_pb2.SliceScore(
        name=part.name, rows=part.rows, accuracy=part.accuracy, macro_f1=part.macro_f1, macro_f1_ci95=interval
    )


def deployment(view: DeploymentView, *, dry_run: bool = False) -> registry_pb2.Deployment:
    item, spec = view.state, view.state.spec
    shown = registry_pb2.Deployment(
        name=item.name,
        model=spec.model if spec is not None else item.models[-1],
        serving_model=item.version.model if item.version is not None else "",
        generation=item.generation,
        version=item.version.version if item.version is not None else 0,
        targets=[_target(served, view.models[served.version.model]) for served in item.targets],
        rollout=_rollout(item.rollout, view.awaited) if item.rollout else None,
        stopped=item.stopped,
        dry_run=dry_run or None,
        aliases={alias: _version_name(ref) for alias, ref in item.aliases.items()},
        deleted=spec is None or None,
    )
    if spec is not None:
        shown.placement.CopyFrom(_placement(spec.placement))
        shown.approval, shown.automatic, shown.compare = spec.approval, spec.automatic, spec.compare
        if spec.policy is not None:
            shown.policy.CopyFrom(registry_pb2.RolloutPolicy(**spec.policy.model_dump()))
    return shown


def _target(served: Served, model: ModelState) -> registry_pb2.Target:
    ref = served.version
    precision = model.version(ref.version).precision
    return registry_pb2.Target(
        model=ref.model, version=ref.version, precision=precision, role=served.role, weight=served.weight
    )


def _version_name(ref: VersionRef) -> registry_pb2.VersionName:
    return registry_pb2.VersionName(model=ref.model, version=ref.version)


def _placement(placement: Placement) -> registry_pb2.Placement:
    return registry_pb2.Placement(replicas=placement.replicas, device=placement.device or "", quorum=placement.quorum)


def _rollout(item: Rollout, awaited: str) -> registry_pb2.Rollout:
    return registry_pb2.Rollout(
        waits_for=awaited or None,
        id=item.id,
        model=item.version.model,
        version=item.version.version,
        state=item.state,
        step=item.step,
        weights=item.policy.weights,
        actor=item.actor,
        reason=item.reason,
        started_at=timestamp(item.started_at),
        changed_at=timestamp(item.changed_at),
        evidence_json=orjson.dumps([part.model_dump(mode="json") for part in item.evidence]).decode(),
    )


def _gate(item: Version) -> registry_pb2.Gate | None:
    if item.gate is None:
        return None
    checks = [
        registry_pb2.GateCheck(
            name=check.name, passed=check.passed, detail=check.detail, value=check.value, limit=check.limit
        )
        for check in item.gate.checks
    ]
    return registry_pb2.Gate(passed=item.gate.passed, checks=checks)


def history_entry(line: HistoryEntry) -> common_pb2.HistoryEntry:
    return common_pb2.HistoryEntry(
        sequence=line.sequence,
        kind=line.kind,
        actor=line.actor,
        reason=line.reason,
        at=timestamp(line.at),
        detail_json=orjson.dumps(line.payload).decode() if line.kind else "",
        stream=line.stream,
        tenant=line.tenant,
        previous_hash=line.previous_hash,
        hash=line.hash,
    )


def lineage(name: str, number: int, graph: Lineage) -> registry_pb2.Lineage:
    nodes = [
        registry_pb2.LineageNode(
            id=node.id,
            kind=node.kind,
            label=node.label,
            at=timestamp(node.at),
            facts=node.facts,
            evidence_json=orjson.dumps(node.evidence).decode() if node.evidence else "",
        )
        for node in graph.nodes
    ]
    edges = [
        registry_pb2.LineageEdge(source=edge.source, target=edge.target, relation=edge.relation) for edge in graph.edges
    ]
    return registry_pb2.Lineage(model=name, version=number, nodes=nodes, edges=edges)


def policy_changes(policy: registry_pb2.RolloutPolicy) -> PolicyChanges:
    """The fields that are set; without weights, these are not."""
    given = {field.name: value for field, value in policy.ListFields() if field.name != "weights"}
    return PolicyChanges.model_validate({**given, "weights": tuple(policy.weights) or None})


def new_spec(wire: registry_pb2.CreateDeploymentRequest, model: str, default: RolloutPolicy) -> DeploymentSpec:
    """Raises InvalidSpec, InvalidPolicy."""
    return DeploymentSpec(model=model).changed(spec_changes(wire), default)


def spec_changes(
    wire: registry_pb2.CreateDeploymentRequest | registry_pb2.UpdateDeploymentRequest,
) -> SpecChanges:
    """What of a specification the request gives. Raises InvalidSpec, InvalidPolicy."""
    given: dict[str, object] = {
        name: getattr(wire, name) for name in ("replicas", "quorum", "automatic", "compare") if wire.HasField(name)
    }
    if isinstance(wire, registry_pb2.UpdateDeploymentRequest) and wire.HasField("model"):
        given["model"] = wire.model
    if wire.HasField("device"):
        device = _choice(DeviceChoice, wire.device or DeviceChoice.ANY, "device")
        given |= {"any_device": True} if device is DeviceChoice.ANY else {"device": Device(device)}
    if wire.HasField("approval"):
        given["approval"] = _choice(Approval, wire.approval or Approval.NONE, "approval")
    policy = policy_changes(wire.policy) if wire.HasField("policy") else None
    return SpecChanges.model_validate({**given, "policy": policy})


def _choice(kind: type[C], text: str, name: str) -> C:
    """Raises InvalidSpec."""
    try:
        return kind(text)
    except ValueError:
        raise InvalidSpec(problem=f"{name}: it is none of {', '.join(kind)}", field=name) from None


class DeviceChoice(StrEnum):
    """What a request may name as a deployment's device."""

    CPU = "cpu"
    CUDA = "cuda"
    ANY = "any"
