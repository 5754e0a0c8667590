"""What a model artifact is: a folder with these files, a hashed manifest and a signature.

```
millrace.json          this page's `ModelSpec`
tokenizer.json         the tokenizer, for the `tokenizers` library
fp32.onnx, int8.onnx, fp16.onnx   one self-contained graph a variant: no external data, no custom operators
baseline.fp32.npy      float32 [rows, width]: pooled embeddings of the reference split, by that variant
evaluation.json        the whole evaluation report
manifest.json          `Manifest`: every other file with its size and SHA-256
model.sig              OpenSSF model signature (key mode) over all files but itself
```

Each graph takes `input_ids` and `attention_mask` (int64 [batch, length]) and gives `logits`
(float32 [batch, labels]) and `embedding` (float32 [batch, width], mean-pooled, unit length).

A model that generates has no baselines, and instead

```
millrace.json                     `DecoderSpec`
chat_template.jinja               how messages become a prompt, where the model has a template
fp32.onnx and fp32.onnx.data, ... a graph a variant with its weights beside it, as onnxruntime-genai's builder makes it
```

Such a graph takes `input_ids` (int64 [batch, new]), `attention_mask` (int64 [batch, total]) and, a layer N,
`past_key_values.N.key|value` ([batch, heads, total, width]); it gives `logits` ([batch, 1, vocabulary]), of the last
position alone, and `present.N.key|value`.
"""

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, TypeAdapter

from services.contracts.names import Identifier, Label, Sha256

SPEC_FILE: Final = "millrace.json"
TOKENIZER_FILE: Final = "tokenizer.json"
EVALUATION_FILE: Final = "evaluation.json"
TEMPLATE_FILE: Final = "chat_template.jinja"
MANIFEST_FILE: Final = "manifest.json"
SIGNATURE_FILE: Final = "model.sig"


class Precision(StrEnum):
    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    INT4 = "int4"


class Device(StrEnum):
    CPU = "cpu"
    CUDA = "cuda"


PREFERENCE: Final[Mapping[Device, tuple[Precision, ...]]] = {
    Device.CPU: (Precision.INT8, Precision.INT4, Precision.FP32),
    Device.CUDA: (Precision.FP16, Precision.FP32, Precision.INT4),
}
"""What a device serves, best first, and nothing else: float16 crawls on a CPU, and the nodes of dynamic int8 fall back
from CUDA to the CPU, fifty times slower than float32 there."""


def devices_of(precision: Precision) -> list[Device]:
    """The devices that a variant is meant for."""
    return [device for device, precisions in PREFERENCE.items() if precision in precisions]


def best_variant(passed: Collection[Precision], device: Device) -> Precision | None:
    """What the device serves of the variants that passed; None where none of them is meant for it."""
    return next((precision for precision in PREFERENCE[device] if precision in passed), None)


def graph_file(precision: Precision) -> str:
    return f"{precision}.onnx"


def weights_file(precision: Precision) -> str:
    """Of a graph whose weights lie beside it."""
    return f"{graph_file(precision)}.data"


def baseline_file(precision: Precision) -> str:
    return f"baseline.{precision}.npy"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ModelSpec(_Frozen):
    """What a server needs to know to serve the artifact; `millrace.json`."""

    task: str = "text-classification"
    labels: list[Label] = Field(min_length=2)
    max_length: int = Field(ge=8, le=8192, description="tokens, the two special ones included")
    pad_token_id: int = 0
    embedding_width: int = Field(ge=1)
    base_model: str
    variants: list[Precision] = Field(min_length=1)
    devices: dict[Precision, list[Device]] = Field(
        default_factory=dict, description="which devices each variant is meant for"
    )

    def meant_for(self, precision: Precision) -> list[Device]:
        """The devices of a variant; those of its kind in an artifact that names none."""
        return self.devices.get(precision) or devices_of(precision)


class DecoderSpec(_Frozen):
    """What a server needs to know to serve a model that generates; `millrace.json`."""

    task: Literal["generation"] = "generation"
    context_length: int = Field(ge=8, le=1_048_576, description="tokens of prompt and answer")
    vocabulary_size: int = Field(ge=2, le=1_000_000)
    head_size: int = Field(ge=1, le=4096, description="width of a key and of a value")
    end_token_ids: list[int] = Field(min_length=1, description="an answer ends with any of these")
    special_tokens: dict[str, str] = Field(
        default_factory=dict, description="what the template knows by a name: bos_token, eos_token, pad_token"
    )
    base_model: str
    variants: list[Precision] = Field(min_length=1)
    devices: dict[Precision, list[Device]] = Field(
        default_factory=dict, description="which devices each variant is meant for"
    )

    def meant_for(self, precision: Precision) -> list[Device]:
        return self.devices.get(precision) or devices_of(precision)


AnySpec: TypeAlias = ModelSpec | DecoderSpec


def parse_spec(content: bytes) -> AnySpec:
    """Of `millrace.json`, by the task that it names. Raises pydantic's ValidationError."""
    return _SPEC.validate_json(content)


def _kind_of(value: Any) -> str:
    task = value.get("task") if isinstance(value, dict) else getattr(value, "task", None)
    return "decoder" if task == "generation" else "encoder"


_SPEC: Final[TypeAdapter[AnySpec]] = TypeAdapter(
    Annotated[Annotated[ModelSpec, Tag("encoder")] | Annotated[DecoderSpec, Tag("decoder")], Discriminator(_kind_of)]
)


class ManifestFile(_Frozen):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    size_bytes: int = Field(ge=0)
    sha256: Sha256


class Manifest(_Frozen):
    """Every file of the artifact but the manifest and its signature, sorted by name."""

    files: list[ManifestFile]


class ArtifactRef(_Frozen):
    """Where an artifact lies, and the one hash that fixes all of it."""

    uri: str = Field(description="a folder in the artifact store")
    digest: Sha256 = Field(description="SHA-256 of manifest.json's bytes")
    signer: Identifier = Field(description="id of the key that signed the manifest")
    size_bytes: int = Field(ge=0)
