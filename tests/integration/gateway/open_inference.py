"""Requests of the Open Inference Protocol, by REST and by gRPC, to a gateway of a test's own."""

from typing import Any

from services.contracts.rpc import open_inference_pb2 as pb
from services.gateway.inbound.oip.grpc import SERVICE
from services.gateway.inbound.oip.tensors import pack_strings
from tests.integration.gateway.gateway import GatewayUnderTest, target

INFER = "/v2/models/news/infer"


def infer_request(*texts: str, **more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": list(texts)}], **more}


def in_grpc(*texts: str, outputs: tuple[str, ...] = (), **more: Any) -> pb.ModelInferRequest:
    requested_outputs = [pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs]
    given = pb.ModelInferRequest.InferInputTensor(name="text", datatype="BYTES", shape=[len(texts)])
    fields = {"model_name": "news", "inputs": [given], "raw_input_contents": [pack_strings(texts)], **more}
    return pb.ModelInferRequest(outputs=requested_outputs, **fields)


def call(gateway: GatewayUnderTest, method: str, **options: Any) -> Any:
    """A unary method of the service, called with its request's fields."""
    send_request = gateway.rpc_method(SERVICE, method)
    kind = getattr(pb, SERVICE.methods_by_name[method].input_type.name)
    return lambda **fields: send_request(kind(**fields), **options)


async def serving(gateway: GatewayUnderTest, *versions: int) -> Any:
    replica = await gateway.replica("replica-1", *(versions or (1,)))
    await gateway.deploy(target(1))
    await gateway.serves(1)
    return replica
