"""From the domain's words to the wire's."""

import orjson

from services.contracts.rpc import common_pb2, registry_pb2
from services.contracts.training import SliceScore
from services.kit.transport.grpc_requests import timestamp
from services.registry.domain import RolloutPolicy
from services.registry.domain.lineage import Lineage
from services.registry.domain.state import ModelState, Rollout, Version
from services.registry.ports import HistoryEntry


def model(state: ModelState, *, dry_run: bool = False) -> registry_pb2.Model:
    versions = [version(state, item) for item in reversed(state.versions)]
    return registry_pb2.Model(name=state.model, versions=versions, aliases=state.aliases, dry_run=dry_run or None)


def version(state: ModelState, item: Version) -> registry_pb2.Version:
    trained = item.trained
    return registry_pb2.Version(
        model=state.model,
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
        aliases=state.aliases_of(item.number),
    )


def slice_score(part: SliceScore) -> common_pb2.SliceScore:
    interval = common_pb2.Interval(low=part.macro_f1_ci95.low, high=part.macro_f1_ci95.high)
    return common_pb2.SliceScore(
        name=part.name, rows=part.rows, accuracy=part.accuracy, macro_f1=part.macro_f1, macro_f1_ci95=interval
    )


def deployment(state: ModelState, name: str, *, dry_run: bool = False) -> registry_pb2.Deployment:
    """Raises UnknownDeployment."""
    item = state.deployment(name)
    return registry_pb2.Deployment(
        name=item.name,
        model=state.model,
        generation=item.generation,
        version=item.version or 0,
        targets=[
            registry_pb2.Target(
                version=served.version,
                precision=state.version(served.version).precision,
                role=served.role,
                weight=served.weight,
            )
            for served in item.targets
        ],
        rollout=_rollout(item.rollout) if item.rollout else None,
        stopped=item.stopped,
        dry_run=dry_run or None,
    )


def _rollout(item: Rollout) -> registry_pb2.Rollout:
    return registry_pb2.Rollout(
        id=item.id,
        version=item.version,
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


def lineage(name: str, number: int, found: Lineage) -> registry_pb2.Lineage:
    nodes = [
        registry_pb2.LineageNode(
            id=node.id,
            kind=node.kind,
            label=node.label,
            at=timestamp(node.at),
            facts=node.facts,
            evidence_json=orjson.dumps(node.evidence).decode() if node.evidence else "",
        )
        for node in found.nodes
    ]
    edges = [
        registry_pb2.LineageEdge(source=edge.source, target=edge.target, relation=edge.relation) for edge in found.edges
    ]
    return registry_pb2.Lineage(model=name, version=number, nodes=nodes, edges=edges)


def rollout_policy(wire: registry_pb2.RolloutPolicy, default: RolloutPolicy) -> RolloutPolicy:
    """The default with the fields that were set. Raises InvalidPolicy."""
    return default.changed(
        weights=tuple(wire.weights) or None,
        bake_seconds=wire.bake_seconds if wire.HasField("bake_seconds") else None,
        minimum_requests=wire.minimum_requests if wire.HasField("minimum_requests") else None,
        step_timeout_seconds=wire.step_timeout_seconds if wire.HasField("step_timeout_seconds") else None,
        mirror=wire.mirror if wire.HasField("mirror") else None,
    )
