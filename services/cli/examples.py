"""Reading event schemas: what a field may be, in words, and an example that validates."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from services.contracts.events import Event

Node = dict[str, Any]

WORDS: Final = {
    "dataset": "reviews", "model": "reviews", "deployment": "reviews", "uri": "file:///srv/data/reviews.jsonl",
    "label": "positive", "text": "works as promised", "run": "run-01", "rollout": "rollout-01", "request": "req-01",
    "replica": "inference-0", "address": "127.0.0.1:8132", "reason": "told as an example", "name": "all",
}  # fmt: skip
"""Values that read well where they fit; the schema decides."""
STRINGS: Final = ("example", "example-01", "0" * 64, "file:///srv/example", "e" * 16)
TIME: Final = "2026-11-03T12:00:00Z"
NAME_PATTERN_WORDS: Final = "lower-case letters, digits, dot, dash and underscore, at most 63"


class NoExample(ValueError):
    """A schema asks for something that this module cannot make."""


def example(event: "type[Event]", *, full: bool = False) -> Node:
    """A body that the event class takes: what is required, or with `full` every field."""
    from services.contracts.schemas import event_schema

    schema = event_schema(event)
    made: Node = _value("", schema, schema, full=full)
    event.model_validate(made)
    return made


def resolved(node: Node, root: Node) -> Node:
    """What the node stands for: references followed, and of an optional field what it is when it is there."""
    if "$ref" in node:
        target = root
        for part in str(node["$ref"]).removeprefix("#/").split("/"):
            target = target[part]
        return resolved({**target, **{key: value for key, value in node.items() if key != "$ref"}}, root)
    for key in ("anyOf", "oneOf", "allOf"):
        if key in node:
            there = [one for one in node[key] if one.get("type") != "null"]
            rest = {name: value for name, value in node.items() if name != key}
            if not there:
                return rest
            required = [*rest.get("required", ()), *there[0].get("required", ())]
            return resolved({**rest, **there[0], **({"required": required} if required else {})}, root)
    return node


def node_at(path: list[str], root: Node) -> Node | None:
    """The schema of a field, such as `recipe.epochs`; numbers in the path are places in a list."""
    node = resolved(root, root)
    for part in path:
        if part.isdecimal() and "items" in node:
            node = resolved(node["items"], root)
        elif part in node.get("properties", {}):
            node = resolved(node["properties"][part], root)
        elif isinstance(node.get("additionalProperties"), dict):
            node = resolved(node["additionalProperties"], root)
        else:
            return None
    return node


def in_words(node: Node) -> str:
    """What the schema takes there, for people."""
    from services.contracts.names import NAME_PATTERN

    if "const" in node or "enum" in node:
        return f"one of {', '.join(map(str, node.get('enum', [node.get('const')])))}"
    kind = {
        "object": "an object",
        "array": "a list",
        "string": "text",
        "integer": "a whole number",
        "number": "a number",
    }
    last_line = [kind.get(str(node.get("type")), str(node.get("type", "anything")))]
    if node.get("pattern") == NAME_PATTERN:
        last_line.append(NAME_PATTERN_WORDS)
    elif "pattern" in node:
        last_line.append(f"like {node['pattern']}")
    if node.get("format") == "date-time":
        last_line.append(f"a time such as {TIME}")
    bounds = (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<"))
    last_line += [f"{sign} {node[name]}" for name, sign in bounds if name in node]
    if "maxLength" in node and "pattern" not in node:
        last_line.append(f"{node.get('minLength', 0)} to {node['maxLength']} characters")
    if node.get("minItems"):
        last_line.append(f"at least {node['minItems']}")
    return ", ".join(last_line) + (f" ({node['description']})" if node.get("description") else "")


def unknown_fields(value: object, node: Node, root: Node, at: str = "") -> Iterator[str]:
    """Fields of a body that no schema names: consumers ignore them, and most are a slip of the pen."""
    node = resolved(node, root)
    if isinstance(value, dict) and "properties" in node:
        for name, inner in value.items():
            position = f"{at}.{name}" if at else str(name)
            if name not in node["properties"]:
                yield position
            else:
                yield from unknown_fields(inner, node["properties"][name], root, position)
    elif isinstance(value, list) and "items" in node:
        for number, inner in enumerate(value):
            yield from unknown_fields(inner, node["items"], root, f"{at}.{number}")


def _other_choices(node: Node) -> set[str]:
    """Where one of several fields is needed: all but the first of them."""
    return {name for one in node.get("anyOf", ())[1:] for name in one.get("required", ())}


def _value(name: str, node: Node, root: Node, *, full: bool) -> Any:
    left_out = _other_choices(node)
    node = resolved(node, root)
    if "const" in node or "enum" in node:
        return node.get("const", node.get("enum", [None])[0])
    kind = node.get("type")
    if kind == "object":
        expected = list(node.get("properties", {})) if full else node.get("required", [])
        made = [one for one in expected if one not in left_out]
        return {one: _value(one, node["properties"][one], root, full=full) for one in made}
    if kind == "array":
        length = max(node.get("minItems", 0), int(full))
        return [_value(name.removesuffix("s"), node["items"], root, full=full) for _ in range(length)]
    if kind == "string":
        return _string(name, node)
    if kind in ("integer", "number"):
        return _number(node, integer=kind == "integer")
    if kind == "boolean":
        return bool(node.get("default", True))
    raise NoExample(f"{name}: {node}")


def _string(name: str, node: Node) -> str:
    if isinstance(node.get("default"), str):
        return str(node["default"])
    if node.get("format") == "date-time":
        return TIME
    low, high = node.get("minLength", 0), node.get("maxLength", 1000)
    for candidate in (WORDS.get(name, ""), *STRINGS):
        if candidate and low <= len(candidate) <= high and re.search(node.get("pattern", ""), candidate):
            return candidate
    raise NoExample(f"{name}: {node}")


def _number(node: Node, *, integer: bool) -> int | float:
    """The default, or the smallest that is allowed and not negative, or the middle of an open range."""
    if isinstance(node.get("default"), int | float):
        return node["default"]  # type: ignore[no-any-return]
    low = node.get("minimum", node.get("exclusiveMinimum"))
    high = node.get("maximum", node.get("exclusiveMaximum"))
    if integer:
        return max(1, int(low or 0) + int("exclusiveMinimum" in node)) if high != 0 else 0
    if low is not None and high is not None:
        return (low + high) / 2  # type: ignore[no-any-return]
    return float(low) + 0.5 if low is not None else 0.5
