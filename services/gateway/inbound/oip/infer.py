"""An inference request of the protocol, whichever transport it came by, and what it asks and is answered in our words.

The model takes one input, `text`. Its outputs, of N texts and the L likeliest labels, the likeliest first:
`label` and `score` [N], which are answered unless others are listed; `labels` and `scores` [N, L]; `embedding` [N, W].
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, TypeAlias

from services.contracts.errors import BadField, InternalError, MillraceError
from services.contracts.tasks import CLASSIFICATION
from services.contracts.tasks.classification import ClassificationRequest, ClassificationResult
from services.gateway.domain.requests import Answer, Predict, check_identifier, check_name
from services.gateway.inbound.oip.tensors import (
    BYTES,
    FP32,
    check_count,
    count_texts,
    pack_floats,
    pack_strings,
    unpack_strings,
)
from services.kit.core.ids import Ids

INPUT: Final = "text"
OUTPUTS: Final[Mapping[str, tuple[str, tuple[int, ...]]]] = {
    "label": (BYTES, (-1,)),
    "score": (FP32, (-1,)),
    "labels": (BYTES, (-1, -1)),
    "scores": (FP32, (-1, -1)),
    "embedding": (FP32, (-1, -1)),
}
"""By name: the data type, and the shape with -1 for any size."""
UNASKED: Final = ("label", "score")
"""The outputs of a request that lists none."""
STRINGS: Final = "str"
"""What some clients write beside an input to say that its bytes are UTF-8."""
MICROSECONDS: Final = 1_000_000
MAX_VERSION: Final = 2**32 - 1

Value: TypeAlias = bool | int | float | str
Parameters: TypeAlias = Mapping[str, Value]

_KINDS: Final[Mapping[str, tuple[type, str]]] = {
    "sticky_key": (str, "a string"),
    "whole_texts": (bool, "true or false"),
    "timeout": (int, "a whole number of microseconds"),
    "priority": (int, "a whole number"),
    "binary_data_output": (bool, "true or false"),
    "triton_enable_empty_final_response": (bool, "true or false"),
}
_INPUT_KINDS: Final[Mapping[str, tuple[type, str]]] = {
    "binary_data_size": (int, "a number of bytes"),
    "content_type": (str, "a string"),
}
_OUTPUT_KINDS: Final[Mapping[str, tuple[type, str]]] = {
    "binary_data": (bool, "true or false"),
    "classification": (int, "a whole number"),
}
_SEQUENCE: Final = ("sequence_id", "sequence_start", "sequence_end")


@dataclass(frozen=True, slots=True)
class Input:
    """A tensor as it was sent: `raw` bytes, or strings that were read from text already."""

    name: str
    datatype: str
    shape: Sequence[int]
    parameters: Parameters
    raw: bytes | memoryview | None = None
    strings: Sequence[str] = ()
    data_at: str = ""
    """What the transport calls the field that holds the data."""


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output that was listed."""

    name: str
    parameters: Parameters


@dataclass(frozen=True, slots=True)
class InferRequest:
    """One inference request."""

    model: str
    version: str
    id: str
    parameters: Parameters
    inputs: Sequence[Input]
    outputs: Sequence[RequestedOutput]

    def names(self) -> Sequence[str]:
        """The outputs to answer with."""
        return [output.name for output in self.outputs] or UNASKED


@dataclass(frozen=True, slots=True)
class Output:
    """A tensor of the answer, its elements in row-major order."""

    name: str
    shape: tuple[int, ...]
    elements: "list[str] | array[float]"

    @property
    def datatype(self) -> str:
        return OUTPUTS[self.name][0]

    def raw(self) -> bytes:
        elements = self.elements
        return pack_strings(elements) if isinstance(elements, list) else pack_floats(elements)


def predict_command(request: InferRequest, *, tenant: str, ids: Ids, now: float, seconds: float) -> Predict:
    """`seconds` is the longest that the transport allows; the request may ask for less.

    Raises BadField or Malformed.
    """
    check_name(request.model, "model_name")
    version = read_version(request.version, "model_version")
    if request.id:
        check_identifier(request.id, "id")
    check_parameters(request.parameters)
    _check_outputs(request.outputs)
    timeout = request.parameters.get("timeout", 0)
    if timeout:
        seconds = min(seconds, float(timeout) / MICROSECONDS)
    classification = ClassificationRequest(
        texts=_read_texts(request.inputs),
        with_embeddings=any(output.name == "embedding" for output in request.outputs),
        truncate=not request.parameters.get("whole_texts", False),
    )
    return Predict(
        tenant=tenant,
        deployment=request.model,
        task=CLASSIFICATION,
        request=classification,
        request_id=request.id or ids.new("req"),
        deadline=now + seconds,
        sticky_key=str(request.parameters.get("sticky_key", "")),
        version=version,
    )


def outputs_of(answer: Answer, names: Sequence[str]) -> list[Output]:
    result: ClassificationResult = answer.result()
    return [_output(result, name) for name in names]


def words(error: MillraceError) -> str:
    """All of an error in one string, which is what the protocol has for it."""
    body = error.body()
    at = f" [{body.field}]" if body.field and body.field not in body.message else ""
    return f"{body.message}{at}" + (f" ({body.hint})" if body.hint else "")


def read_version(text: str, at: str) -> int:
    """A version's number, 0 for none. Raises BadField."""
    if not text:
        return 0
    if text.isascii() and text.isdigit() and text[0] != "0" and len(text) <= 10 and int(text) <= MAX_VERSION:
        return int(text)
    raise BadField(name=at, problem="it must be the number of a version, such as 2", field=at)


def check_parameters(parameters: Parameters) -> None:
    """Raises BadField for a parameter that is not known, is of another type, or asks for what there is not."""
    for name in _SEQUENCE:
        if name in parameters:
            at = f"parameters.{name}"
            raise BadField(name=at, problem="the model keeps no state, so there are no sequences", field=at)
    _check_kinds(parameters, _KINDS, "parameters")
    if parameters.get("priority"):
        raise BadField(name="parameters.priority", problem="there are no priorities", field="parameters.priority")


def _read_texts(inputs: Sequence[Input]) -> list[str]:
    if not inputs:
        raise BadField(name="inputs", problem=f"the input '{INPUT}' is missing", field="inputs")
    for index, given in enumerate(inputs):
        if given.name != INPUT:
            at = f"inputs[{index}].name"
            problem = f"the model has no input '{given.name[:100]}'; it takes '{INPUT}'"
            raise BadField(name=at, problem=problem, field=at)
    if len(inputs) > 1:
        raise BadField(name="inputs[1].name", problem=f"the input '{INPUT}' is given twice", field="inputs[1].name")
    given = inputs[0]
    if given.datatype != BYTES:
        raise BadField(name="inputs[0].datatype", problem=f"it must be {BYTES}", field="inputs[0].datatype")
    _check_tensor(given.parameters, _INPUT_KINDS, "inputs[0].parameters")
    if given.parameters.get("content_type", STRINGS) != STRINGS:
        at = "inputs[0].parameters.content_type"
        raise BadField(name=at, problem=f"it must be '{STRINGS}'", field=at)
    count = count_texts(given.shape, "inputs[0].shape")
    if given.raw is not None:
        return unpack_strings(given.raw, count, given.data_at)
    check_count(len(given.strings), count, given.data_at)
    return list(given.strings)


def _check_outputs(outputs: Sequence[RequestedOutput]) -> None:
    seen: set[str] = set()
    for index, output in enumerate(outputs):
        at = f"outputs[{index}].name"
        if output.name not in OUTPUTS:
            known = ", ".join(OUTPUTS)
            raise BadField(name=at, problem=f"the model has no output '{output.name[:100]}'; it has {known}", field=at)
        if output.name in seen:
            raise BadField(name=at, problem=f"the output '{output.name}' is asked for twice", field=at)
        seen.add(output.name)
        _check_tensor(output.parameters, _OUTPUT_KINDS, f"outputs[{index}].parameters")
        if output.parameters.get("classification"):
            at = f"outputs[{index}].parameters.classification"
            raise BadField(name=at, problem="ask for the outputs 'labels' and 'scores' instead", field=at)


def _check_tensor(parameters: Parameters, kinds: Mapping[str, tuple[type, str]], at: str) -> None:
    for name in sorted(parameters):
        if name.startswith("shared_memory"):
            where = f"{at}.{name[:100]}"
            raise BadField(name=where, problem="shared memory is not offered: send the data itself", field=where)
    _check_kinds(parameters, kinds, at)


def _check_kinds(parameters: Parameters, kinds: Mapping[str, tuple[type, str]], at: str) -> None:
    for name, value in sorted(parameters.items()):
        where = f"{at}.{name[:100]}"
        if name not in kinds:
            hint = f"known are: {', '.join(kinds)}"
            raise BadField(name=where, problem="there is no such parameter", field=where, hint=hint)
        kind, expected = kinds[name]
        if type(value) is not kind:
            raise BadField(name=where, problem=f"it must be {expected}", field=where)
        if isinstance(value, int) and value < 0:
            raise BadField(name=where, problem="it is negative", field=where)


def _output(result: ClassificationResult, name: str) -> Output:
    predictions = result.predictions
    count = len(predictions)
    if name == "label":
        return Output(name, (count,), [prediction.label for prediction in predictions])
    if name == "score":
        return Output(name, (count,), array("f", [prediction.score for prediction in predictions]))
    if name == "embedding":
        values = array("f", chain.from_iterable(result.embeddings))
        return Output(name, _rectangle(len(result.embeddings), len(values)), values)
    ranked = [part for prediction in predictions for part in prediction.scores]
    shape = _rectangle(count, len(ranked))
    if name == "labels":
        return Output(name, shape, [part.label for part in ranked])
    return Output(name, shape, array("f", [part.score for part in ranked]))


def _rectangle(rows: int, elements: int) -> tuple[int, int]:
    """Rows and columns. Raises InternalError where the rows cannot be of one length."""
    if not rows or elements % rows:
        raise InternalError
    return rows, elements // rows
