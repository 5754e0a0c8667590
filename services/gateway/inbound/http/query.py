"""The query string, stricter than FastAPI takes it: no name twice, and none that the path does not know."""

from collections.abc import Iterable
from typing import Final
from urllib.parse import parse_qsl

from services.contracts.errors import BadField, Malformed
from services.gateway.inbound.http.wire_model import QueryModel
from services.kit.transport.http import Scope

MAX_FIELDS: Final = 20


def read_pairs(scope: Scope) -> list[tuple[str, str]]:
    """Raises Malformed."""
    try:
        text = scope.get("query_string", b"").decode("ascii")
        return parse_qsl(
            text, keep_blank_values=True, strict_parsing=bool(text), errors="strict", max_num_fields=MAX_FIELDS
        )
    except ValueError as error:
        raise Malformed(problem="the query cannot be parsed", field="query") from error


def check_names(pairs: Iterable[tuple[str, str]], model: type[QueryModel] | None) -> None:
    """Raises BadField."""
    names = list(model.model_fields) if model is not None else []
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise BadField(name=name, problem="it is given twice", field=name)
        seen.add(name)
        if name not in names:
            hint = f"this path takes: {', '.join(names) or 'none'}"
            raise BadField(name=name, problem="there is no such parameter", field=name, hint=hint)
