"""`/v1` in `openapi.json`."""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from services.contracts.errors import BadField, InternalError, MillraceError, TimedOut, Unauthenticated
from services.contracts.tasks.errors import ContextLengthExceeded
from services.gateway.errors import (
    BodyTooLarge,
    DeploymentNotReady,
    ForeignHost,
    ModelNotFound,
    ReplicaFull,
    SlowBody,
    TokensNotText,
    UnsupportedMedia,
)
from services.gateway.inbound.openai.answers import refused
from services.gateway.inbound.openai.embeddings import MAX_INPUTS
from services.kit.identity.auth import RoleTooWeak

TAG: Final = {"name": "OpenAI", "description": "The API that OpenAI's clients know: base URL `/v1`, the same key."}

_MODEL: Final = {"id": "topics", "object": "model", "created": 1_793_707_502, "owned_by": "millrace"}
_PINNED: Final = {**_MODEL, "id": "topics@3"}
_USAGE: Final = {"prompt_tokens": 22, "total_tokens": 22}

_SAID: Final[Mapping[int, tuple[str, tuple[MillraceError, ...]]]] = {
    400: (
        "The request is not valid.",
        (
            BadField(name="input[1]", problem="it is empty", field="input[1]"),
            ContextLengthExceeded(limit=10_000, unit="characters", field="input[0]"),
            TokensNotText(),
        ),
    ),
    401: ("No key, or one that is not known.", (Unauthenticated(),)),
    403: ("The key may not do that.", (RoleTooWeak(role="viewer", needed="client"), ForeignHost(host="evil.example"))),
    404: ("There is no such model.", (ModelNotFound(model="text-embedding-3-small"),)),
    408: ("The body did not arrive in time.", (SlowBody(seconds=10.0, field="body"),)),
    413: ("The body is too large.", (BodyTooLarge(limit=8_388_608, field="body"),)),
    415: ("The body is no JSON.", (UnsupportedMedia(header="content-type", value="text/plain", field="content-type"),)),
    429: ("Too much at once.", (ReplicaFull(queued=64, retry_after_seconds=1.0),)),
    500: ("An error of ours.", (InternalError(),)),
    503: ("Nothing serves the model now.", (DeploymentNotReady(deployment="topics", retry_after_seconds=1.0),)),
    504: ("The deadline passed.", (TimedOut(seconds=30.0),)),
}


def openapi_paths() -> dict[str, Any]:
    listed = {"object": "list", "data": [_MODEL, _PINNED]}
    common = (401, 403, 500, 503)
    return {
        "/v1/models": {
            "get": _operation("openaiListModels", "The models of the key's tenant.", "OpenAIModelList", listed, common)
        },
        "/v1/models/{model}": {
            "get": {
                **_operation("openaiGetModel", "One model.", "OpenAIModel", _PINNED, (*common, 400, 404)),
                "parameters": [_MODEL_PARAMETER],
            }
        },
        "/v1/embeddings": {
            "post": {
                **_operation(
                    "openaiCreateEmbeddings",
                    f"Embeds a text, or up to {MAX_INPUTS:,} of them, all by one version.",
                    "OpenAIEmbeddings",
                    {"object": "list", "data": [_embedding(0), _embedding(1)], "model": "topics@3", "usage": _USAGE},
                    tuple(_SAID),
                ),
                "requestBody": {"required": True, "content": {"application/json": _REQUEST}},
            }
        },
    }


def openapi_schemas() -> dict[str, Any]:
    return {
        "OpenAIModel": _object(id=_STRING, object={"const": "model"}, created=_WHOLE, owned_by=_STRING),
        "OpenAIModelList": _object(object={"const": "list"}, data=_list("OpenAIModel")),
        "OpenAIEmbedding": _object(object={"const": "embedding"}, index=_WHOLE, embedding=_VECTOR),
        "OpenAIEmbeddings": _object(
            object={"const": "list"},
            data=_list("OpenAIEmbedding"),
            model={"type": "string", "description": "the version that answered, as `deployment@version`"},
            usage=_object(prompt_tokens=_WHOLE, total_tokens=_WHOLE),
        ),
        "OpenAIError": _object(
            error=_object(
                message=_STRING,
                type={"enum": ["invalid_request_error", "requests", "server_error"]},
                param={"type": ["string", "null"], "description": "the offending parameter"},
                code={"type": ["string", "null"], "description": "stable, for programs"},
            )
        ),
    }


_STRING: Final = {"type": "string"}
_WHOLE: Final = {"type": "integer", "minimum": 0}
_VECTOR: Final = {
    "oneOf": [
        {"type": "array", "items": {"type": "number"}},
        {"type": "string", "contentEncoding": "base64", "description": "little-endian float32"},
    ]
}
_MODEL_PARAMETER: Final = {
    "name": "model",
    "in": "path",
    "required": True,
    "description": "a deployment, or `deployment@version`",
    "schema": _STRING,
    "example": "topics@3",
}
_REQUEST: Final[dict[str, Any]] = {
    "schema": {
        "type": "object",
        "required": ["model", "input"],
        "additionalProperties": False,
        "properties": {
            "model": {"type": "string", "description": "a deployment, or `deployment@version`"},
            "input": {
                "oneOf": [_STRING, {"type": "array", "items": _STRING, "minItems": 1, "maxItems": MAX_INPUTS}],
                "description": "texts, not token ids; each is read whole or refused",
            },
            "encoding_format": {"enum": ["float", "base64", None], "default": "float"},
            "dimensions": {
                "type": ["integer", "null"],
                "minimum": 1,
                "description": "keep the first so many values, of unit length again",
            },
            "user": {"type": ["string", "null"], "maxLength": 200, "description": "one user stays with one version"},
        },
    },
    "examples": {
        "one text": {"value": {"model": "topics", "input": "Return a new path with the suffix changed."}},
        "several, packed": {
            "value": {
                "model": "topics@3",
                "input": ["Return a new path with the suffix changed.", "Sort the rows of a table by one column."],
                "encoding_format": "base64",
                "dimensions": 128,
                "user": "user-17",
            }
        },
    },
}


def _embedding(index: int) -> dict[str, Any]:
    return {"object": "embedding", "index": index, "embedding": [0.0312, -0.0571, 0.0844]}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _list(schema: str) -> dict[str, Any]:
    return {"type": "array", "items": {"$ref": f"#/components/schemas/{schema}"}}


def _operation(name: str, summary: str, schema: str, example: object, statuses: tuple[int, ...]) -> dict[str, Any]:
    told = {"schema": {"$ref": f"#/components/schemas/{schema}"}, "example": example}
    return {
        "operationId": name,
        "tags": [TAG["name"]],
        "summary": summary,
        "parameters": [],
        "responses": {
            "200": {"description": "The answer.", "content": {"application/json": told}},
            **{str(status): _refusal(*_SAID[status]) for status in sorted(statuses)},
        },
    }


def _refusal(description: str, refusals: tuple[MillraceError, ...]) -> dict[str, Any]:
    examples = {refusal.code: {"value": orjson.loads(refused(refusal)[1])} for refusal in refusals}
    schema = {"$ref": "#/components/schemas/OpenAIError"}
    return {"description": description, "content": {"application/json": {"schema": schema, "examples": examples}}}
