"""Names and numbers that cross rooms, with the shape each must have."""

from typing import Annotated, Final, TypeAlias

from pydantic import Field, StringConstraints

DEFAULT_TENANT: Final = "default"

NAME_PATTERN: Final = r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$"

Name: TypeAlias = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
"""Lower-case letters, digits, dot, dash and underscore, at most 63; safe in a path, a topic key and a URL."""

Identifier: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")]
"""Made by a machine: runs, events, requests, replicas."""

Tenant: TypeAlias = Name


def qualified_name(tenant: str, name: str) -> str:
    """One tenant's name among those of all: `topics` of the default tenant, `acme/topics` of another."""
    return name if tenant == DEFAULT_TENANT else f"{tenant}/{name}"


ModelName: TypeAlias = Name
DatasetName: TypeAlias = Name
DeploymentName: TypeAlias = Name
TaskName: TypeAlias = Name
RunId: TypeAlias = Identifier
RolloutId: TypeAlias = Identifier
ReplicaId: TypeAlias = Identifier
RequestId: TypeAlias = Identifier
EventId: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=200)]
"""A CloudEvents id: any producer's own choice, so only its length is bounded."""

VersionNumber: TypeAlias = Annotated[int, Field(ge=1)]
Sha256: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Label: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=200)]
