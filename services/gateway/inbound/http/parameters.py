"""Path parameters: each has the shape of what it names, and another one is 400 before anything is looked for."""

from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import Path
from pydantic import AfterValidator

from services.contracts.errors import BadField, Malformed
from services.contracts.names import NAME_PATTERN
from services.gateway.domain.requests import check_identifier, check_name
from services.gateway.domain.uploads import check_content_hash
from services.gateway.inbound.http.wire_model import UINT32_MAX

DIGEST: Final = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def _check_version(reference: str, at: str) -> None:
    check_name(reference.removeprefix("@"), at)


def _check_digits(text: str, at: str) -> None:
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise Malformed(problem="it is not a number", field=at)


def _check_uint32(text: str, at: str) -> None:
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= UINT32_MAX):
        raise BadField(name=at, problem=f"it must be a whole number from 0 to {UINT32_MAX}", field=at)


def _checked(check: Callable[[str, str], None], name: str) -> AfterValidator:
    def validate(value: str) -> str:
        check(value, name)
        return value

    return AfterValidator(validate)


def _path(example: str, pattern: str | None = NAME_PATTERN) -> Any:
    return Path(examples=[example], json_schema_extra={"pattern": pattern} if pattern else None)


ModelName = Annotated[str, _checked(check_name, "model"), _path("topics")]
DeploymentName = Annotated[str, _checked(check_name, "deployment"), _path("topics")]
AliasName = Annotated[str, _checked(check_name, "alias"), _path("challenger")]
DatasetName = Annotated[str, _checked(check_name, "dataset"), _path("docstrings-2026-11")]
TopicName = Annotated[str, _checked(check_name, "topic"), _path("dataset.ready")]
KeyId = Annotated[str, _checked(check_name, "key"), _path("1f0c9a2e")]
VersionReference = Annotated[str, _checked(_check_version, "version"), _path("@champion", None)]
RunId = Annotated[str, _checked(check_identifier, "run"), _path("run-01k9rm50a1s2d3f4g5h6j7k8m9", None)]
BatchId = Annotated[str, _checked(check_identifier, "batch"), _path("batch-01k9rn0c3v5b7n9m1q2w4e6r8t", None)]
ContentHash = Annotated[str, _checked(check_content_hash, "content_hash"), _path(DIGEST, "^[0-9a-f]{8,64}$")]
Partition = Annotated[
    str, _checked(_check_digits, "partition"), _checked(_check_uint32, "partition"), _path("0", "^[0-9]{1,10}$")
]
Offset = Annotated[str, _checked(_check_digits, "offset"), _path("3", "^[0-9]{1,19}$")]
WindowNumber = Annotated[
    str, _checked(check_name, "number"), _checked(_check_uint32, "number"), _path("3", "^[0-9]{1,10}$")
]
