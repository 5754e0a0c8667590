"""What is kept of an answered request: one record, whatever the task and however many items it holds."""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, TypeAlias

from pydantic import Field

from services.contracts.artifact import Precision
from services.contracts.names import RequestId, VersionNumber
from services.contracts.training import Fact

Item: TypeAlias = dict[str, Any]
"""One item of a request and of its answer, as JSON; which fields it has is its task's matter."""

Answer: TypeAlias = Any
"""What of an item's answer is judged and compared, as JSON; None where nothing of it was kept."""


class Source(StrEnum):
    """Where a request came from."""

    LIVE = "live"
    BATCH = "batch"
    KAFKA = "kafka"
    MIRROR = "mirror"
    """A copy of a live request that another version answers too; nobody sees the answer."""
    PROBE = "probe"
    """Our own, to see whether something answers."""


class InferenceRecord(Fact):
    """One request that a version answered, or failed on. What is not the version's fault leaves no record."""

    request: RequestId
    version: VersionNumber
    variant: Precision | None = Field(default=None, description="that answered; unset by replicas that do not say it")
    source: Source = Field(
        default=Source.LIVE, description="only live requests say something of the traffic; a mirrored one compares"
    )
    at: datetime
    latency_ms: float = Field(ge=0)
    tokens: int = Field(ge=0)
    outcome: Literal["ok", "fault"] = "ok"
    items: list[Item] = Field(default_factory=list, description="each as the task's log has it")
    embedding: str | None = Field(
        default=None, description="base64 of little-endian float16: of the item that stands for the request, if kept"
    )

    def representative(self) -> Mapping[str, Any]:
        """The item whose embedding is kept; an empty one where there is none."""
        return self.items[representative(self.request, len(self.items))] if self.items else {}


def representative(request: str, items: int) -> int:
    """The item that stands for its request: drawn by the id, so that every version and replica takes the same."""
    if items <= 1:
        return 0
    digest = hashlib.blake2b(request.encode(), digest_size=8, person=b"item").digest()
    return int.from_bytes(digest, "big") % items
