"""The paths for those who run the gateway, in `openapi.json`."""

from typing import Any

from services.gateway.inbound.openapi.refusals import references

_HEALTH: dict[str, Any] = {
    "type": "object",
    "required": ["status"],
    "properties": {
        "status": {"type": "string"},
        "checks": {"type": "object", "additionalProperties": {"type": "boolean"}},
    },
}


def operations_paths() -> dict[str, Any]:
    ready = {"status": "ready", "checks": {"routes": True, "broker": True}}
    late = {"status": "not ready", "checks": {"routes": False, "broker": True}}
    return {
        "/healthz": {"get": _open("getLiveness", "Whether the process lives.", {"200": _told({"status": "alive"})})},
        "/readyz": {
            "get": _open(
                "getReadiness",
                "Whether it takes requests, check by check.",
                {"200": _told(ready), "503": _told(late)},
            )
        },
        "/metrics": {
            "get": _keyed(
                "getMetrics",
                "Prometheus metrics.",
                "text/plain",
                {"type": "string"},
                "millrace_outbox_depth 0.0",
            )
        },
        "/openapi.json": {
            "get": _keyed("getDocument", "This document.", "application/json", {"type": "object"}, {"openapi": "3.1.0"})
        },
    }


def _told(example: dict[str, Any]) -> dict[str, Any]:
    media = {"schema": _HEALTH, "example": example}
    return {"description": f"It is {example['status']}.", "content": {"application/json": media}}


def _open(name: str, summary: str, responses: dict[str, Any]) -> dict[str, Any]:
    """A path that asks for no key."""
    return {"operationId": name, "tags": ["Operations"], "summary": summary, "security": [], "responses": responses}


def _keyed(name: str, summary: str, kind: str, schema: dict[str, Any], example: object) -> dict[str, Any]:
    media = {"schema": schema, "example": example}
    return {
        "operationId": name,
        "tags": ["Operations"],
        "summary": summary,
        "responses": {"200": {"description": "The answer.", "content": {kind: media}}, **references((401, 403))},
    }
