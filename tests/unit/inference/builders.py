"""Deployments as the registry announces them, for tests."""

from typing import Any

from services.contracts.artifact import ArtifactRef, Device, Precision
from services.contracts.events import DeploymentChanged, ReplicaReported, ReplicaVersion, Role, Target
from services.contracts.names import DEFAULT_TENANT
from services.inference.domain.versions import DesiredDeployment, VersionKey


def artifact(version: int) -> ArtifactRef:
    return ArtifactRef(uri=f"memory://m/{version}", digest=f"{version:064x}", signer="key", size_bytes=1)


def target(version: int, role: Role = Role.PRIMARY, weight: int = 100) -> Target:
    return Target(version=version, artifact=artifact(version), precision=Precision.FP32, role=role, weight=weight)


def deployment(
    generation: int, *targets: Target, deployment: str = "topics", tenant: str = DEFAULT_TENANT, **more: Any
) -> DesiredDeployment:
    values = {"model": deployment, **more}
    changed = DeploymentChanged(
        deployment=deployment, generation=generation, targets=list(targets), reason="a test", **values
    )
    return DesiredDeployment(changed, tenant)


def peer_report(
    replica: str,
    *ready: int,
    sequence: int = 1,
    device: Device = Device.CPU,
    leaving: bool = False,
    deployment: str = "topics",
) -> ReplicaReported:
    """Another replica, which has these versions ready."""
    parts = [
        ReplicaVersion(deployment=deployment, model=deployment, version=version, state="ready") for version in ready
    ]
    return ReplicaReported(
        replica=replica,
        address="127.0.0.1:1",
        sequence=sequence,
        versions=parts,
        device=device,
        capacity=1,
        leaving=leaving,
    )


def key(version: int, deployment: str = "topics") -> VersionKey:
    return VersionKey(deployment, version, f"{version:064x}", Precision.FP32)
