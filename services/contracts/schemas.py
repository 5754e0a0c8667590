"""The JSON Schema of an event, as `proto/events/` holds it."""

from typing import Any

from services.contracts.events import Event


def event_schema(event: type[Event]) -> dict[str, Any]:
    """Of what producers send: defaults may be left out. JSON Schema 2020-12."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": event.type_name(),
        **event.model_json_schema(mode="validation"),
    }
