"""`POST /v1/embeddings`: OpenAI's request into our command, and the answer into OpenAI's.

Source: the API reference of OpenAI, "Create embeddings", as openai-python 2.54 types it.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from services.contracts.errors import BadField
from services.contracts.tasks.vectors import to_base64
from services.gateway.domain.requests import MAX_STICKY_KEY_CHARS, Embedded
from services.gateway.domain.vectors import shortened
from services.gateway.errors import ModelNotFound, TokensNotText

MAX_INPUTS: Final = 2048
_MODEL: Final = re.compile(r"(?P<deployment>[a-z0-9][a-z0-9._-]{0,62})(@(?P<version>[1-9][0-9]{0,8}))?")
_FIELDS: Final = frozenset({"model", "input", "encoding_format", "dimensions", "user"})

Encoding = Literal["float", "base64"]


@dataclass(frozen=True, slots=True)
class EmbeddingsRequest:
    """One request, checked. `dimensions` 0 takes what the model has, `version` 0 what the weights choose."""

    deployment: str
    version: int
    texts: list[str]
    encoding: Encoding
    dimensions: int
    user: str


def read_model(model: str) -> tuple[str, int]:
    """Deployment and version (0 without one) of `deployment` or `deployment@version`. Raises ModelNotFound."""
    hit = _MODEL.fullmatch(model)
    if hit is None:
        raise ModelNotFound(model=model[:100])
    return hit["deployment"], int(hit["version"] or 0)


def read_request(sent: Mapping[str, Any]) -> EmbeddingsRequest:
    """Raises BadField, TokensNotText or ModelNotFound, which name the parameter."""
    for name in sent:
        if name not in _FIELDS:
            raise BadField(name=name[:100], problem="there is no such parameter", field=name[:100])
    model = read_text(sent, "model")
    if not model:
        raise BadField(name="model", problem="it is required", field="model")
    deployment, version = read_model(model)
    texts = _texts(sent.get("input"))
    return EmbeddingsRequest(deployment, version, texts, _encoding(sent), _dimensions(sent), read_user(sent))


def answer(embedded: Embedded, request: EmbeddingsRequest) -> dict[str, Any]:
    """Names the version that answered, so that a client can hold on to it. Raises TooManyDimensions."""
    data = []
    for index, embedding in enumerate(embedded.embeddings):
        values = shortened(embedding, request.dimensions) if request.dimensions else embedding
        vector = to_base64(values) if request.encoding == "base64" else values.tolist()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    return {
        "object": "list",
        "data": data,
        "model": f"{embedded.deployment}@{embedded.version}",
        "usage": {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens},
    }


def seconds_of(headers: Mapping[bytes, str], longest: float) -> float:
    """How long the client waits, where its SDK tells; no longer than we let anyone wait."""
    try:
        seconds = float(headers.get(b"x-stainless-read-timeout", ""))
    except ValueError:
        return longest
    return min(longest, seconds) if seconds > 0 and math.isfinite(seconds) else longest


def _texts(sent: object) -> list[str]:
    if isinstance(sent, str):
        return [sent]
    if not isinstance(sent, list) or not sent:
        raise BadField(name="input", problem="send a string or a list of strings", field="input")
    if any(isinstance(part, int | list) and not isinstance(part, bool) for part in sent):
        raise TokensNotText
    if len(sent) > MAX_INPUTS:
        raise BadField(name="input", problem=f"it has {len(sent)} texts; at most {MAX_INPUTS} are taken", field="input")
    if not all(isinstance(part, str) for part in sent):
        raise BadField(name="input", problem="send a string or a list of strings", field="input")
    return sent


def read_text(sent: Mapping[str, Any], name: str) -> str:
    value = sent.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadField(name=name, problem="it must be a string", field=name)
    return value


def read_user(sent: Mapping[str, Any]) -> str:
    value = read_text(sent, "user")
    if len(value) > MAX_STICKY_KEY_CHARS or not value.isprintable():
        problem = f"it must be printable, and at most {MAX_STICKY_KEY_CHARS} characters long"
        raise BadField(name="user", problem=problem, field="user")
    return value


def _encoding(sent: Mapping[str, Any]) -> Encoding:
    value = sent.get("encoding_format")
    if value is None or value == "float":
        return "float"
    if value == "base64":
        return "base64"
    raise BadField(name="encoding_format", problem="it is 'float' or 'base64'", field="encoding_format")


def _dimensions(sent: Mapping[str, Any]) -> int:
    value = sent.get("dimensions")
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadField(name="dimensions", problem="it must be a whole number from 1 on", field="dimensions")
    return value
