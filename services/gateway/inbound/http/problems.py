"""What FastAPI finds wrong with a request, as one of our errors that names the field."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from services.contracts.errors import BadField, Malformed, MillraceError
from services.gateway.inbound.http.wire_model import UINT32_MAX, NulCharacter

MAX_NAME_CHARS: Final = 200
_UINT32: Final = f"it must be a whole number from 0 to {UINT32_MAX}"
_NUMBER: Final = "it must be a number"
PROBLEMS: Final[Mapping[str, str]] = {
    "bool_type": "it must be true or false",
    "dict_type": "it must be a JSON object",
    "extra_forbidden": "there is no such field",
    "finite_number": _NUMBER,
    "float_type": _NUMBER,
    "greater_than_equal": _UINT32,
    "int_type": _UINT32,
    "less_than_equal": _UINT32,
    "list_type": "it must be a list",
    "missing": "it is required",
    "model_attributes_type": "it must be a JSON object",
    "model_type": "it must be a JSON object",
    "string_type": "it must be a string",
    "string_unicode": "it must be a string",
}
"""By pydantic's type of an error; its own message where it has no words here."""


def first_problem(errors: Sequence[Any], *, paged: bool = False) -> MillraceError:
    """Of FastAPI's errors, located by `body`, `query` or `path`; `paged` queries have a listing's page."""
    first: Mapping[str, Any] = errors[0]
    source, *path = first["loc"]
    if source == "query" and paged and path[0] in ("page_size", "page_token"):
        path = ["page", *path]
    name = field_name(path)[:MAX_NAME_CHARS] or "body"
    kind = "missing" if first.get("input") is None else first["type"]
    problem = PROBLEMS.get(kind, first["msg"].removeprefix("Value error, "))
    if isinstance(first.get("ctx", {}).get("error"), NulCharacter):
        return Malformed(problem=problem, field=name)
    return BadField(name=name, problem=problem, field=name)


def field_name(path: Sequence[object]) -> str:
    """`policy.weights[1]` of ("policy", "weights", 1)."""
    name = ""
    for part in path:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else str(part)
    return name
