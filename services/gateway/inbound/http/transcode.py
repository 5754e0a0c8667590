"""JSON and query strings into protobuf requests, strictly, and protobuf answers into JSON.

Stricter than protobuf's own JSON mapping: only the fields' proto names, no numbers in strings, no NaN,
no NUL; and each refusal names the field.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from services.contracts.errors import BadField, Malformed, MillraceError
from services.gateway.inbound.http.routes import Route

UINT32_MAX: Final = 2**32 - 1
TIMESTAMP: Final = "google.protobuf.Timestamp"
JSON_TYPES: Final = {
    FieldDescriptor.CPPTYPE_STRING: "string",
    FieldDescriptor.CPPTYPE_BOOL: "boolean",
    FieldDescriptor.CPPTYPE_UINT32: "integer",
    FieldDescriptor.CPPTYPE_DOUBLE: "number",
    FieldDescriptor.CPPTYPE_FLOAT: "number",
}
_NUMBERS: Final = (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT)


def new_message(descriptor: Descriptor) -> Message:
    return message_factory.GetMessageClass(descriptor)()


def render(message: Message) -> bytes:
    """Every field under its proto name, unset ones with their defaults; unset messages are left out."""
    return orjson.dumps(
        json_format.MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    )


def build_request(route: Route, path: Mapping[str, str], sent: Mapping[str, Any]) -> Message:
    """The gRPC request of a REST call. Raises BadField or Malformed, naming the field."""
    for name in sent:
        if name in route.hidden or (name in path and sent[name] != path[name]):
            raise BadField(name=name, problem="it cannot be sent on this path", field=name)
    request = new_message(route.request)
    named = {name: _from_text(route.request.fields_by_name[name], text) for name, text in path.items()}
    _fill(request, {**sent, **named}, "")
    for name in route.required:
        if not getattr(request, name):
            raise BadField(name=name, problem="it is required", field=name)
    return request


def read_query(route: Route, pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Query parameters as the JSON object they stand for; `page_size` reaches into a nested `page`."""
    sent: dict[str, Any] = {}
    seen: set[str] = set()
    for name, text in pairs:
        if name in seen:
            raise BadField(name=name, problem="it is given twice", field=name)
        seen.add(name)
        parent, spec = _query_field(route, name)
        (sent.setdefault(parent, {}) if parent else sent)[name] = _from_text(spec, text)
    return sent


def query_fields(route: Route) -> list[tuple[str, FieldDescriptor]]:
    """What may stand in the query of a route: (name of the enclosing message or nothing, field)."""
    found: list[tuple[str, FieldDescriptor]] = []
    for spec in route.request.fields:
        if spec.name in route.parameters or spec.name in route.hidden:
            continue
        if spec.message_type is None or spec.message_type.full_name == TIMESTAMP:
            found.append(("", spec))
        else:
            found.extend((spec.name, inner) for inner in spec.message_type.fields)
    return found


def _query_field(route: Route, name: str) -> tuple[str, FieldDescriptor]:
    for parent, spec in query_fields(route):
        if spec.name == name:
            return parent, spec
    known = ", ".join(spec.name for _, spec in query_fields(route)) or "none"
    raise BadField(name=name, problem="there is no such parameter", field=name, hint=f"this path takes: {known}")


def _from_text(spec: FieldDescriptor, text: str) -> object:
    if spec.cpp_type == FieldDescriptor.CPPTYPE_BOOL and text in ("true", "false"):
        return text == "true"
    if spec.cpp_type == FieldDescriptor.CPPTYPE_UINT32 and text.isascii() and text.isdigit() and len(text) <= 10:
        return int(text)
    return text


def _fill(message: Message, data: object, at: str) -> None:
    if not isinstance(data, dict):
        raise _wrong(at or "body", "a JSON object")
    for key, value in data.items():
        where = f"{at}.{key}" if at else key
        spec = message.DESCRIPTOR.fields_by_name.get(key)
        if spec is None:
            raise BadField(name=where[:200], problem="there is no such field", field=where[:200])
        if value is None:
            continue
        if spec.is_repeated:
            _fill_repeated(message, spec, value, where)
        elif spec.message_type is not None and spec.message_type.full_name == TIMESTAMP:
            _fill_moment(getattr(message, key), value, where)
        elif spec.message_type is not None:
            getattr(message, key).SetInParent()
            _fill(getattr(message, key), value, where)
        else:
            setattr(message, key, _scalar(spec, value, where))


def _fill_moment(moment: Any, value: object, at: str) -> None:
    try:
        moment.FromJsonString(value if isinstance(value, str) else "")
    except ValueError as error:
        raise _wrong(at, "a time of RFC 3339, such as 2026-11-25T10:00:00Z") from error


def _fill_repeated(message: Message, spec: Any, value: object, where: str) -> None:
    if not isinstance(value, list):
        raise _wrong(where, "a list")
    field = getattr(message, spec.name)
    for place, item in enumerate(value):
        at = f"{where}[{place}]"
        if spec.message_type is not None:
            _fill(field.add(), item, at)
        else:
            field.append(_scalar(spec, item, at))


def _scalar(spec: Any, value: object, at: str) -> object:
    kind = spec.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING and isinstance(value, str):
        if "\x00" in value:
            raise Malformed(problem="it holds a NUL character", field=at)
        return value
    if kind == FieldDescriptor.CPPTYPE_BOOL and isinstance(value, bool):
        return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == FieldDescriptor.CPPTYPE_UINT32 and is_number and isinstance(value, int) and 0 <= value <= UINT32_MAX:
        return value
    if kind in _NUMBERS and is_number and math.isfinite(value):  # type: ignore[arg-type]
        return float(value)  # type: ignore[arg-type]
    expected = {
        FieldDescriptor.CPPTYPE_STRING: "a string",
        FieldDescriptor.CPPTYPE_BOOL: "true or false",
        FieldDescriptor.CPPTYPE_UINT32: "a whole number from 0 to 4294967295",
        FieldDescriptor.CPPTYPE_DOUBLE: "a number",
        FieldDescriptor.CPPTYPE_FLOAT: "a number",
    }
    raise _wrong(at, expected[kind])


def _wrong(at: str, expected: str) -> MillraceError:
    return BadField(name=at, problem=f"it must be {expected}", field=at)
