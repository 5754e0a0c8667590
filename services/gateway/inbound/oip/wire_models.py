"""The wire models of the Open Inference Protocol, version 2, and of its extensions."""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from services import __version__
from services.gateway.inbound.http.wire_model import RequestModel
from services.gateway.inbound.oip.models import BACKEND, EXTENSIONS, PLATFORM, SERVER

_MODEL_NAME: Final = "topics"
_TEXTS: Final = ["Return a new path with the suffix changed.", "Sort the rows of a table by one column."]
_INFERENCE: Final[dict[str, Any]] = {
    "id": "tour-1",
    "parameters": {"whole_texts": True},
    "inputs": [{"name": "text", "datatype": "BYTES", "shape": [2], "data": _TEXTS}],
    "outputs": [{"name": "label"}, {"name": "score"}],
}


class OpenInferenceError(BaseModel):
    error: str = Field(description="what is wrong, for people")


class ServerLive(BaseModel):
    live: bool = Field(examples=[True])


class ServerReady(BaseModel):
    ready: bool = Field(examples=[True])


class ServerMetadata(BaseModel):
    name: str = Field(examples=[SERVER])
    version: str = Field(examples=[__version__])
    extensions: list[str] = Field(examples=[[*EXTENSIONS]])


class Tensor(BaseModel):
    name: str = Field(examples=["label"])
    datatype: Literal["BYTES", "FP32"] = Field(examples=["BYTES"])
    shape: list[int] = Field(examples=[[2]])
    parameters: dict[str, Any] = Field(default_factory=dict, examples=[{}])
    data: list[Any] = Field(
        default_factory=list,
        description="in row-major order; absent where the tensor is binary",
        examples=[["files", "data"]],
    )


class TensorMetadata(BaseModel):
    name: str = Field(examples=["text"])
    datatype: Literal["BYTES", "FP32"] = Field(examples=["BYTES"])
    shape: list[int] = Field(examples=[[-1]])


class ModelMetadata(BaseModel):
    name: str = Field(examples=[_MODEL_NAME])
    versions: list[str] = Field(examples=[["2", "3"]])
    platform: str = Field(examples=[PLATFORM])
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelReady(BaseModel):
    name: str = Field(examples=[_MODEL_NAME])
    ready: bool = Field(examples=[True])


class InferenceParameters(BaseModel):
    sticky_key: str = Field(default="", examples=["user-17"])
    timeout: int = Field(default=0, description="microseconds", examples=[500_000])
    whole_texts: bool = Field(default=False, examples=[True])
    binary_data_output: bool = Field(default=False, examples=[False])


class OutputParameters(BaseModel):
    binary_data: bool = Field(default=False, examples=[False])


class InferRequestedOutput(BaseModel):
    name: Literal["label", "score", "labels", "scores", "embedding"] = Field(examples=["label"])
    parameters: OutputParameters = Field(default_factory=OutputParameters)


class ModelInferRequest(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [_INFERENCE]})

    id: str = Field(default="", examples=["tour-1"])
    parameters: InferenceParameters = Field(default_factory=InferenceParameters)
    inputs: list[Tensor]
    outputs: list[InferRequestedOutput] = Field(default_factory=list)


class ModelInferResponse(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    model_name: str = Field(examples=[_MODEL_NAME])
    model_version: str = Field(examples=["3"])
    id: str = Field(examples=["tour-1"])
    outputs: list[Tensor]


class ConfigTensor(BaseModel):
    name: str = Field(examples=["text"])
    data_type: str = Field(examples=["TYPE_STRING"])
    dims: list[int] = Field(examples=[[]])


class SpecificVersions(BaseModel):
    versions: list[int] = Field(examples=[[2, 3]])


class VersionPolicy(BaseModel):
    specific: SpecificVersions


class ConfigParameter(BaseModel):
    string_value: str = Field(examples=["7"])


class TransactionPolicy(BaseModel):
    decoupled: bool = Field(examples=[False])


class ModelConfig(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    name: str = Field(examples=[_MODEL_NAME])
    platform: str = Field(examples=[PLATFORM])
    backend: str = Field(examples=[BACKEND])
    version_policy: VersionPolicy
    max_batch_size: int = Field(examples=[64])
    input: list[ConfigTensor]
    output: list[ConfigTensor]
    dynamic_batching: dict[str, Any] = Field(examples=[{}])
    parameters: dict[str, ConfigParameter] = Field(examples=[{"generation": {"string_value": "7"}}])
    model_transaction_policy: TransactionPolicy


class StatisticDuration(BaseModel):
    count: int = Field(ge=0, examples=[42])
    ns: int = Field(ge=0, examples=[251_000_000])


class InferenceStatistics(BaseModel):
    success: StatisticDuration
    fail: StatisticDuration
    queue: StatisticDuration
    compute_input: StatisticDuration
    compute_infer: StatisticDuration
    compute_output: StatisticDuration
    cache_hit: StatisticDuration
    cache_miss: StatisticDuration


class ModelStatistics(BaseModel):
    name: str = Field(examples=[_MODEL_NAME])
    version: str = Field(examples=["3"])
    last_inference: int = Field(ge=0, description="milliseconds since 1970", examples=[1_793_707_502_250])
    inference_count: int = Field(ge=0, examples=[84])
    execution_count: int = Field(ge=0, examples=[42])
    inference_stats: InferenceStatistics
    batch_stats: list[Any] = Field(examples=[[]])


class Statistics(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    model_stats: list[ModelStatistics]


class RepositoryIndexRequest(RequestModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"ready": True}]})

    ready: bool = Field(default=False, description="only those that can answer", examples=[True])


class RepositoryIndexEntry(BaseModel):
    name: str = Field(examples=[_MODEL_NAME])
    version: str = Field(examples=["3"])
    state: Literal["READY", "UNAVAILABLE"] = Field(examples=["READY"])
    reason: str = Field(examples=[""])


class RepositoryRequest(RequestModel):
    """Of a load: `parameters.version` or, as Triton's clients send it, `parameters.config`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"parameters": {"version": "@champion"}}]})

    parameters: dict[str, Any] = Field(default_factory=dict, examples=[{"version": "@champion"}])


class Done(BaseModel):
    """Nothing more is said."""
