"""What the generated models stand on: strict bodies and queries in, protobuf's JSON out."""

from typing import Annotated, Any, Final, Self, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp as ProtobufTimestamp
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

UINT32_MAX: Final = 2**32 - 1
M = TypeVar("M", bound=Message)


class NulCharacter(ValueError):
    """A text that cannot be read, rather than one that is not valid."""


def _without_nul(text: str) -> str:
    if "\x00" in text:
        raise NulCharacter("it holds a NUL character")
    return text


def _timestamp(text: str) -> str:
    try:
        ProtobufTimestamp().FromJsonString(text)
    except ValueError as error:
        raise ValueError("it must be a time of RFC 3339, such as 2026-11-25T10:00:00Z") from error
    return text


def _not_empty(value: object) -> object:
    if not value:
        raise ValueError("it is required")
    return value


def _query_number(text: object) -> object:
    """Plain digits as the number that they are; anything else stays text, which is refused."""
    if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= 10:
        return int(text)
    return text


def _query_flag(text: object) -> object:
    return {"true": True, "false": False}.get(text, text) if isinstance(text, str) else text


Text = Annotated[str, AfterValidator(_without_nul)]
Timestamp = Annotated[str, AfterValidator(_timestamp), Field(json_schema_extra={"format": "date-time"})]
UInt32 = Annotated[int, Field(ge=0, le=UINT32_MAX)]
QueryUInt32 = Annotated[UInt32, BeforeValidator(_query_number)]
QueryBool = Annotated[bool, BeforeValidator(_query_flag)]
Absent = SkipJsonSchema[None]
"""Of a field that may be left out, and cannot be null."""
NOT_EMPTY: Final = AfterValidator(_not_empty)
"""An empty value is as good as none."""


class WireModel(BaseModel):
    """What a message looks like in JSON: its fields under their proto names."""

    model_config = ConfigDict(protected_namespaces=())

    @classmethod
    def of(cls, message: Message) -> Self:
        """Every field, but for messages that are not set."""
        return cls.model_validate(to_json(message))


class ResponseModel(WireModel):
    """What only goes out."""


class RequestModel(WireModel):
    """Stricter than protobuf's own JSON: no unknown fields, no numbers in strings, no NaN, no NUL."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    def to(self, kind: type[M], **in_path: object) -> M:
        """The gRPC request: what was sent, and what stands in the path."""
        return json_format.ParseDict({**self._sent(), **in_path}, kind())

    def _sent(self) -> dict[str, Any]:
        return self.model_dump(exclude_unset=True, exclude_none=True)


class BodyModel(RequestModel):
    """A JSON body, or an object in it."""


class QueryModel(RequestModel):
    """The parameters of a query."""


class PagedQueryModel(QueryModel):
    """One of a listing, whose message holds its page in a message of its own."""

    def _sent(self) -> dict[str, Any]:
        sent = super()._sent()
        page = {name: sent.pop(name) for name in ("page_size", "page_token") if name in sent}
        return {**sent, "page": page} if page else sent


def to_json(message: Message) -> dict[str, Any]:
    """Every field under its proto name, unset ones with their defaults; unset messages are left out."""
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
