"""The errors of one family of paths in `openapi.json`, from a table of what is common by status."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from pydantic import BaseModel

from services.contracts.errors import ErrorBody, MillraceError

Rows = Mapping[int, tuple[str, tuple[MillraceError, ...]]]
RETRY_AFTER: Final = {
    "retry-after": {
        "description": "seconds until it is worth trying again",
        "schema": {"type": "integer", "minimum": 1},
    }
}
PASSING: Final = (429, 503, 504)
"""The statuses that say when to try again."""


class ErrorTable:
    """`render` makes the body of an error; `others` are errors of the services behind, in their words."""

    def __init__(
        self,
        prefix: str,
        model: type[BaseModel],
        rows: Rows,
        render: Callable[[MillraceError], Any],
        others: Mapping[int, tuple[ErrorBody, ...]] = MappingProxyType({}),
    ) -> None:
        self.model = model
        self.statuses = frozenset(rows)
        self._prefix = prefix
        self._rows = rows
        self._render = render
        self._others = others

    def references(self, statuses: Iterable[int]) -> dict[int | str, dict[str, Any]]:
        """The error responses of a route, by status."""
        return {
            status: {
                "$ref": f"#/components/responses/{self._prefix}Error{status}",
                "description": self._rows[status][0],
            }
            for status in sorted(statuses)
        }

    def components(self) -> dict[str, Any]:
        return {f"{self._prefix}Error{status}": self._response(status) for status in sorted(self._rows)}

    def _response(self, status: int) -> dict[str, Any]:
        description, errors = self._rows[status]
        examples = {error.code: {"value": self._render(error)} for error in errors}
        for other in self._others.get(status, ()):
            examples[other.code] = {"value": {"error": other.model_dump(exclude_none=True)}}
        schema = {"$ref": f"#/components/schemas/{self.model.__name__}"}
        content = {"application/json": {"schema": schema, "examples": examples}}
        headers = {"headers": RETRY_AFTER} if status in PASSING else {}
        return {"description": description, "content": content, **headers}
