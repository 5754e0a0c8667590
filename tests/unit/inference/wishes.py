"""Deployments as the registry announces them, for tests."""

from services.contracts.artifact import ArtifactRef, Precision
from services.contracts.events import DeploymentChanged, Role, Target
from services.contracts.names import DEFAULT_TENANT
from services.inference.domain.versions import VersionKey, Wish


def artifact(version: int) -> ArtifactRef:
    return ArtifactRef(uri=f"memory://m/{version}", digest=f"{version:064x}", signer="key", size_bytes=1)


def target(version: int, role: Role = Role.PRIMARY, weight: int = 100) -> Target:
    return Target(version=version, artifact=artifact(version), precision=Precision.FP32, role=role, weight=weight)


def wish(generation: int, *targets: Target, deployment: str = "topics", tenant: str = DEFAULT_TENANT) -> Wish:
    changed = DeploymentChanged(
        deployment=deployment, model=deployment, generation=generation, targets=list(targets), reason="a test"
    )
    return Wish(changed, tenant)


def key(version: int, deployment: str = "topics") -> VersionKey:
    return VersionKey(deployment, version, f"{version:064x}", Precision.FP32)
