"""The gRPC contract as plain data, and what may never change in it.

`tests/contracts/golden/rpc.json` holds every message, field, enum value and method ever released.
`scripts/freeze_contracts.py` adds what is new and refuses to take anything back.
"""

import importlib
import pkgutil
from typing import Any, Final, TypeAlias

from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor

from services.contracts import rpc

Surface: TypeAlias = dict[str, dict[str, Any]]
"""By full name: a message's fields by number, a service's methods by name, an enum's values by number."""

TYPES: Final = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in vars(FieldDescriptor).items()
    if name.startswith("TYPE_") and isinstance(number, int)
}


def _field(field: FieldDescriptor) -> str:
    kind = field.message_type.full_name if field.message_type else TYPES[field.type]
    # `optional` makes a oneof of its own, named with an underscore: on the wire it changes nothing.
    oneof = field.containing_oneof
    choice = f" in {oneof.name}" if oneof is not None and not oneof.name.startswith("_") else ""
    return f"{'repeated ' if field.is_repeated else ''}{kind} {field.name}{choice}"


def _messages(message: Descriptor) -> Surface:
    match: Surface = {message.full_name: {str(field.number): _field(field) for field in message.fields}}
    for nested in message.nested_types:
        match |= _messages(nested)
    return match


def _file(file: FileDescriptor) -> Surface:
    match: Surface = {}
    for message in file.message_types_by_name.values():
        match |= _messages(message)
    for enum in file.enum_types_by_name.values():
        match[enum.full_name] = {str(value.number): value.name for value in enum.values}
    for service in file.services_by_name.values():
        match[service.full_name] = {
            method.name: f"{'stream ' if method.client_streaming else ''}{method.input_type.full_name} -> "
            f"{'stream ' if method.server_streaming else ''}{method.output_type.full_name}"
            for method in service.methods
        }
    return match


def surface() -> Surface:
    """What the generated stubs speak today."""
    match: Surface = {}
    for module in pkgutil.iter_modules(rpc.__path__):
        if module.name.endswith("_pb2"):
            match |= _file(importlib.import_module(f"{rpc.__name__}.{module.name}").DESCRIPTOR)
    return dict(sorted(match.items()))


def breaches(released: Surface, current: Surface) -> list[str]:
    """Each thing that was released and is now gone, renumbered or changed; empty when clients of old still work."""
    match = []
    for name, parts in released.items():
        if name not in current:
            match.append(f"{name} is gone")
            continue
        for key, meaning in parts.items():
            now = current[name].get(key)
            if now is None:
                match.append(f"{name}: {key} ({meaning}) is gone")
            elif now != meaning:
                match.append(f"{name}: {key} was '{meaning}' and is '{now}'")
    return match
