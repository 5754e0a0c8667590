"""The REST form of inference requests and answers: a JSON head, and binary tensors behind it.

How long the head is stands in `Inference-Header-Content-Length`; without it the whole body is JSON.
"""

from collections.abc import Collection, Mapping
from typing import Any, Final

import orjson

from services.contracts.errors import BadField, Malformed, MillraceError
from services.gateway.domain.requests import Answer
from services.gateway.errors import UnsupportedMedia
from services.gateway.inbound.http.request_reader import BodyLimits, read_bytes
from services.gateway.inbound.http.rest_app import AdmittedRequest
from services.gateway.inbound.oip.infer import InferRequest, Input, Parameters, RequestedOutput, outputs_of

HEAD_LENGTH: Final = b"inference-header-content-length"
_FIELDS: Final = frozenset({"id", "parameters", "inputs", "outputs"})
_INPUT_FIELDS: Final = frozenset({"name", "datatype", "shape", "parameters", "data"})
_OUTPUT_FIELDS: Final = frozenset({"name", "parameters"})


class _Tail:
    """The bytes behind the head, taken from the front; None where no header tells of any."""

    def __init__(self, content: memoryview | None) -> None:
        self._content = content

    def take(self, size: object, at: str) -> memoryview:
        """Raises BadField unless there are so many left."""
        if self._content is None:
            problem = "the header Inference-Header-Content-Length is missing, which says where binary data begins"
            raise BadField(name=at, problem=problem, field=at)
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(self._content):
            problem = f"it must be a number of bytes, and {len(self._content)} are left"
            raise BadField(name=at, problem=problem, field=at)
        taken, self._content = self._content[:size], self._content[size:]
        return taken

    def check_empty(self) -> None:
        if self._content:
            problem = f"{len(self._content)} bytes are left behind the head that belong to no input"
            raise Malformed(problem=problem, field="body")


def read_request(body: bytes, head_length: str | None, *, model: str, version: str) -> InferRequest:
    """Raises Malformed or BadField."""
    head, tail = _split(body, head_length)
    sent = read_object(head)
    _check_fields(sent, _FIELDS, "")
    inputs = [_input(given, f"inputs[{index}]", tail) for index, given in enumerate(_objects(sent, "inputs"))]
    tail.check_empty()
    outputs = [_requested_output(listed, f"outputs[{index}]") for index, listed in enumerate(_objects(sent, "outputs"))]
    return InferRequest(
        model=model,
        version=version,
        id=_text(sent, "id", "id") if sent.get("id") is not None else "",
        parameters=_parameters(sent, "parameters"),
        inputs=inputs,
        outputs=outputs,
    )


def write_answer(answer: Answer, request: InferRequest) -> tuple[bytes, int | None]:
    """The body, and the length of its head where binary tensors follow it."""
    chosen = {output.name: output.parameters.get("binary_data") for output in request.outputs}
    otherwise = request.parameters.get("binary_data_output", False)
    outputs: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for output in outputs_of(answer, request.names()):
        entry: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": output.shape}
        binary = chosen.get(output.name)
        if otherwise if binary is None else binary:
            raw = output.raw()
            entry["parameters"] = {"binary_data_size": len(raw)}
            tail.append(raw)
        else:
            entry["data"] = output.elements if isinstance(output.elements, list) else output.elements.tolist()
        outputs.append(entry)
    head = orjson.dumps(
        {
            "model_name": answer.deployment,
            "model_version": str(answer.version),
            "id": answer.request_id,
            "outputs": outputs,
        }
    )
    return (b"".join((head, *tail)), len(head)) if tail else (head, None)


MEDIA: Final = frozenset(
    {"", "application/json", "application/octet-stream", "text/plain", "application/x-www-form-urlencoded"}
)
"""What clients call JSON, and JSON with tensors behind it: aiohttp says text, and curl says a form of anything."""


async def read_body(request: AdmittedRequest, limits: BodyLimits) -> bytes:
    """Raises UnsupportedMedia, and what reading a body raises."""
    media = request.headers.get(b"content-type", "").partition(";")[0].strip().lower()
    if media not in MEDIA:
        hint = "send application/json, or application/octet-stream where tensors follow the JSON"
        raise UnsupportedMedia(header="content-type", value=media[:100], field="content-type", hint=hint)
    return await read_bytes(request.receive, request.headers, limits)


def read_object(body: bytes | memoryview) -> dict[str, Any]:
    """The JSON object; an empty body is an empty object. Raises Malformed."""
    if not body:
        return {}
    try:
        sent = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Malformed(problem=f"the body is not JSON ({error.msg})", field="body") from error
    if not isinstance(sent, dict):
        raise Malformed(problem="the body must be a JSON object", field="body")
    return sent


def _split(body: bytes, head_length: str | None) -> tuple[bytes | memoryview, _Tail]:
    if head_length is None:
        return body, _Tail(None)
    at = HEAD_LENGTH.decode()
    length = int(head_length) if head_length.isascii() and head_length.isdigit() and len(head_length) < 16 else -1
    if not 0 < length <= len(body):
        problem = f"it must be the length of the JSON that begins the body, which has {len(body)} bytes"
        raise BadField(name=at, problem=problem, field=at)
    content = memoryview(body)
    return content[:length], _Tail(content[length:])


def _input(given: Mapping[str, Any], at: str, tail: _Tail) -> Input:
    _check_fields(given, _INPUT_FIELDS, f"{at}.")
    name, datatype = _text(given, "name", f"{at}.name"), _text(given, "datatype", f"{at}.datatype")
    shape, parameters = _shape(given, f"{at}.shape"), _parameters(given, f"{at}.parameters")
    if "binary_data_size" in parameters:
        if "data" in given:
            raise BadField(name=f"{at}.data", problem="the data is given twice", field=f"{at}.data")
        raw = tail.take(parameters["binary_data_size"], f"{at}.parameters.binary_data_size")
        return Input(name, datatype, shape, parameters, raw=raw, data_at=f"{at}.data")
    if "data" not in given and not any(parameter.startswith("shared_memory") for parameter in parameters):
        raise BadField(name=f"{at}.data", problem="it is missing", field=f"{at}.data")
    strings = _strings(given.get("data", []), datatype, f"{at}.data")
    return Input(name, datatype, shape, parameters, strings=strings, data_at=f"{at}.data")


def _requested_output(listed: Mapping[str, Any], at: str) -> RequestedOutput:
    _check_fields(listed, _OUTPUT_FIELDS, f"{at}.")
    return RequestedOutput(_text(listed, "name", f"{at}.name"), _parameters(listed, f"{at}.parameters"))


def _strings(data: object, datatype: str, at: str) -> list[str]:
    """Row by row; a row of one may stand in brackets of its own."""
    if not isinstance(data, list):
        raise _wrong(at, "a list")
    if datatype != "BYTES":
        return []  # of another type, which is refused as such
    strings = [element[0] if isinstance(element, list) and len(element) == 1 else element for element in data]
    for index, string in enumerate(strings):
        if not isinstance(string, str):
            raise _wrong(f"{at}[{index}]", "a string")
    return strings


def _shape(given: Mapping[str, Any], at: str) -> list[int]:
    shape = given.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int for size in shape):
        raise _wrong(at, "a list of whole numbers")
    return shape


def _parameters(sent: Mapping[str, Any], at: str) -> Parameters:
    parameters = sent.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise _wrong(at, "a JSON object")
    for name, value in parameters.items():
        if not isinstance(value, bool | int | float | str):
            raise _wrong(f"{at}.{name[:100]}", "a string, a number, true or false")
    return parameters


def _objects(sent: Mapping[str, Any], field: str) -> list[dict[str, Any]]:
    listed = sent.get(field)
    if listed is None:
        return []
    if not isinstance(listed, list):
        raise _wrong(field, "a list")
    for index, entry in enumerate(listed):
        if not isinstance(entry, dict):
            raise _wrong(f"{field}[{index}]", "a JSON object")
    return listed


def _text(sent: Mapping[str, Any], field: str, at: str) -> str:
    value = sent.get(field)
    if not isinstance(value, str):
        raise _wrong(at, "a string")
    return value


def _check_fields(sent: Mapping[str, Any], known: Collection[str], within: str) -> None:
    for name in sent:
        if name not in known:
            at = f"{within}{name[:100]}"
            raise BadField(name=at, problem="there is no such field", field=at)


def _wrong(at: str, expected: str) -> MillraceError:
    return BadField(name=at, problem=f"it must be {expected}", field=at)
