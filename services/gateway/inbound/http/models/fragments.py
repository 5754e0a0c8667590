"""The wire models of `millrace/v1/common.proto`, generated: change the .proto, and run `make contracts`."""

from pydantic import Field

from services.gateway.inbound.http.wire_model import (
    Absent,
    ResponseModel,
    Timestamp,
    UInt32,
)


class Interval(ResponseModel):
    low: float = Field(examples=[0.842])
    high: float = Field(examples=[0.879])


class Artifact(ResponseModel):
    """Where an artifact lies, and the hash that fixes all of it."""

    uri: str = Field(examples=["file:///var/lib/millrace/datasets/docstrings.jsonl"])
    digest: str = Field(examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"])
    signer: str = Field(examples=["key-1"])
    size_kib: UInt32 = Field(examples=[24320])


class SliceScore(ResponseModel):
    name: str = Field(examples=["all"])
    rows: UInt32 = Field(examples=[500])
    accuracy: float = Field(examples=[0.861])
    macro_f1: float = Field(examples=[0.858])
    macro_f1_ci95: Interval | Absent = Field(default=None)


class Variant(ResponseModel):
    precision: str = Field(examples=["int8"])
    size_kib: UInt32 = Field(examples=[24320])
    macro_f1: float = Field(examples=[0.858])
    agreement: float = Field(examples=[0.994])
    speedup: float = Field(examples=[2.4])
    passed: bool = Field(examples=[True])
    reason: str = Field(examples=[""])


class HistoryEntry(ResponseModel):
    """A line of a room's history, or of a run's."""

    sequence: UInt32 = Field(examples=[42])
    kind: str = Field(examples=["alias_moved"])
    actor: str = Field(examples=["operator:1f0c9a2e"])
    reason: str = Field(examples=["better on the new sources"])
    at: Timestamp | Absent = Field(default=None, examples=["2026-11-03T12:05:02Z"])
    detail_json: str = Field(examples=['{"model":"topics","alias":"champion","version":3}'])
    stream: str = Field(
        description=("What its hash covers beside these. Empty where a history is not chained."),
        examples=["model/topics"],
    )
    tenant: str = Field(examples=["default"])
    previous_hash: str = Field(examples=["f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a080"])
    hash: str = Field(examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"])
