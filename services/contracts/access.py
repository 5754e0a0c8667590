"""Which role a caller needs for what: one table for every door, so that a method without a role is open to nobody.

A viewer reads, a client also asks models, an operator also changes what is trained and served, an admin also makes and
revokes keys and redelivers dead letters. Services call each other with the role `service`, which may do what an
operator may.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class KeyRole(StrEnum):
    VIEWER = "viewer"
    CLIENT = "client"
    OPERATOR = "operator"
    ADMIN = "admin"
    SERVICE = "service"


RANK: Final[Mapping[KeyRole, int]] = {
    KeyRole.VIEWER: 0,
    KeyRole.CLIENT: 1,
    KeyRole.OPERATOR: 2,
    KeyRole.SERVICE: 2,
    KeyRole.ADMIN: 3,
}


def _methods(service: str, by_role: Mapping[KeyRole, tuple[str, ...]]) -> dict[str, KeyRole]:
    return {f"/{service}/{method}": role for role, methods in by_role.items() for method in methods}


OIP_NOT_OFFERED: Final[Mapping[str, str]] = {
    "SystemSharedMemoryStatus": "shared memory",
    "SystemSharedMemoryRegister": "shared memory",
    "SystemSharedMemoryUnregister": "shared memory",
    "CudaSharedMemoryStatus": "shared memory",
    "CudaSharedMemoryRegister": "shared memory",
    "CudaSharedMemoryUnregister": "shared memory",
    "TraceSetting": "trace settings",
    "LogSettings": "log settings",
}
"""Methods of the Open Inference Protocol's extensions that are not offered, which whoever has a key is told."""

METHOD_ROLES: Final[Mapping[str, KeyRole]] = {
    **_methods(
        "millrace.v1.RegistryService",
        {
            KeyRole.VIEWER: (
                "ListModels",
                "GetModel",
                "GetVersion",
                "ListVersions",
                "GetLineage",
                "ListDeployments",
                "GetDeployment",
                "ListHistory",
                "GetHistoryHead",
            ),
            KeyRole.OPERATOR: (
                "SetAlias",
                "CreateDeployment",
                "UpdateDeployment",
                "DeleteDeployment",
                "StartRollout",
                "ApproveRollout",
                "PauseRollout",
                "ResumeRollout",
                "PromoteRollout",
                "RollBack",
                "StopDeployment",
            ),
        },
    ),
    **_methods(
        "millrace.v1.TrainerService",
        {
            KeyRole.VIEWER: (
                "ListDatasets",
                "GetDataset",
                "ListDatasetVersions",
                "GetDatasetVersion",
                "ListRuns",
                "GetRun",
                "GetRunLogs",
            ),
            KeyRole.OPERATOR: ("StartRun", "CancelRun"),
        },
    ),
    **_methods(
        "millrace.v1.MonitorService", {KeyRole.VIEWER: ("GetHealth", "ListWindows", "GetWindow", "ListVerdicts")}
    ),
    **_methods("millrace.v1.InferenceService", {KeyRole.CLIENT: ("Classify", "Embed", "Generate", "Stream")}),
    **_methods("millrace.v1.ReplicaService", {KeyRole.SERVICE: ("Predict",)}),
    **_methods(
        "millrace.v1.GatewayService",
        {KeyRole.CLIENT: ("SendFeedback",), KeyRole.OPERATOR: ("AnnounceDataset", "UploadDataset")},
    ),
    **_methods(
        "millrace.v1.BatchService",
        {
            KeyRole.VIEWER: ("GetBatch", "ListBatches", "GetBatchOutput"),
            KeyRole.OPERATOR: ("CreateBatch", "CancelBatch"),
        },
    ),
    **_methods(
        "millrace.v1.DeadLetterService",
        {KeyRole.ADMIN: ("ListDeadLetters", "GetDeadLetter", "RedeliverDeadLetters")},
    ),
    **_methods("millrace.v1.KeyService", {KeyRole.ADMIN: ("CreateKey", "ListKeys", "RevokeKey")}),
    **_methods(
        "inference.GRPCInferenceService",
        {
            KeyRole.VIEWER: (
                "ServerMetadata",
                "ModelReady",
                "ModelMetadata",
                "ModelConfig",
                "ModelStatistics",
                "RepositoryIndex",
                *OIP_NOT_OFFERED,
            ),
            KeyRole.CLIENT: ("ModelInfer", "ModelStreamInfer"),
            KeyRole.OPERATOR: ("RepositoryModelLoad", "RepositoryModelUnload"),
        },
    ),
    **_methods("grpc.reflection.v1alpha.ServerReflection", {KeyRole.VIEWER: ("ServerReflectionInfo",)}),
    **_methods("grpc.reflection.v1.ServerReflection", {KeyRole.VIEWER: ("ServerReflectionInfo",)}),
}
"""By the method's path on the wire."""

OPEN_METHODS: Final = frozenset(
    {
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/List",
        "/grpc.health.v1.Health/Watch",
        "/inference.GRPCInferenceService/ServerLive",
        "/inference.GRPCInferenceService/ServerReady",
    }
)
"""What tells of health and of nothing else: these ask for no key."""

METRICS_ROLE: Final = KeyRole.OPERATOR
"""`/metrics` of every service: its labels name what every tenant has."""


def suffices(role: KeyRole, needed: KeyRole) -> bool:
    """Whether a key of that role may do what needs the other."""
    return RANK[role] >= RANK[needed]
