"""The gRPC form of inference requests and answers."""

from collections.abc import Mapping
from typing import Any

from services.contracts.errors import BadField, MillraceError
from services.contracts.rpc import open_inference_pb2 as pb
from services.gateway.domain.requests import Answer
from services.gateway.inbound.oip.infer import InferRequest, Input, RequestedOutput, Value, outputs_of, words
from services.gateway.inbound.oip.tensors import BYTES, decoded


def read_request(request: pb.ModelInferRequest) -> InferRequest:
    """Raises BadField."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        problem = f"it has {len(raw)} entries for {len(request.inputs)} inputs"
        raise BadField(name="raw_input_contents", problem=problem, field="raw_input_contents")
    return InferRequest(
        model=request.model_name,
        version=request.model_version,
        id=request.id,
        parameters=read_values(request.parameters, "parameters"),
        inputs=[_input(given, index, raw[index] if raw else None) for index, given in enumerate(request.inputs)],
        outputs=[
            RequestedOutput(listed.name, read_values(listed.parameters, f"outputs[{index}].parameters"))
            for index, listed in enumerate(request.outputs)
        ],
    )


def write_answer(answer: Answer, request: InferRequest) -> pb.ModelInferResponse:
    outputs = outputs_of(answer, request.names())
    return pb.ModelInferResponse(
        model_name=answer.deployment,
        model_version=str(answer.version),
        id=answer.request_id,
        outputs=[
            pb.ModelInferResponse.InferOutputTensor(name=output.name, datatype=output.datatype, shape=output.shape)
            for output in outputs
        ],
        raw_output_contents=[output.raw() for output in outputs],
    )


def _input(given: pb.ModelInferRequest.InferInputTensor, index: int, raw: bytes | None) -> Input:
    at = f"inputs[{index}]"
    parameters = read_values(given.parameters, f"{at}.parameters")
    if raw is not None:
        if given.HasField("contents"):
            raise BadField(name=f"{at}.contents", problem="the data is given twice", field=f"{at}.contents")
        data_at = f"raw_input_contents[{index}]"
        return Input(given.name, given.datatype, given.shape, parameters, raw=raw, data_at=data_at)
    data_at = f"{at}.contents.bytes_contents"
    elements = given.contents.bytes_contents if given.datatype == BYTES else ()
    strings = [decoded(element, number, data_at) for number, element in enumerate(elements)]
    return Input(given.name, given.datatype, given.shape, parameters, strings=strings, data_at=data_at)


def read_values(parameters: Mapping[str, Any], at: str) -> dict[str, Value]:
    """Raises BadField for a parameter that is set to nothing."""
    values: dict[str, Value] = {}
    for name, parameter in parameters.items():
        kind = parameter.WhichOneof("parameter_choice")
        if kind is None:
            where = f"{at}.{name[:100]}"
            raise BadField(name=where, problem="it has no value", field=where)
        values[name] = getattr(parameter, kind)
    return values


def refused(request: pb.ModelInferRequest, error: MillraceError) -> pb.ModelStreamInferResponse:
    echoed = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
    return pb.ModelStreamInferResponse(error_message=words(error), infer_response=echoed)
