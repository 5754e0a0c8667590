"""Which variant CUDA serves, and that fp16 answers there as its proof on the CPU said."""

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest

from services.contracts.artifact import SPEC_FILE, Device, Precision, graph_file
from services.contracts.tasks import EMBEDDING
from services.contracts.tasks.embedding import EmbeddingRequest
from services.inference.domain.batching import Limits
from services.inference.domain.loaded_models import BringUp, LoadedModels
from services.inference.domain.scoring import EngineRequest
from services.inference.errors import ArtifactRefused
from services.inference.outbound.engine import OrtEngine, cuda_is_there, device_for
from services.inference.outbound.pool import WorkerPool
from tests.unit.inference import tiny
from tests.unit.inference.builders import deployment, key, target

pytestmark = pytest.mark.gpu

TEXTS = [" ".join(tiny.WORDS[: 1 + number % 14]) for number in range(64)]


@pytest.fixture(autouse=True)
def cuda() -> None:
    if not cuda_is_there():
        pytest.skip("CUDA device: ONNX Runtime was not built for CUDA, or the driver finds no device")


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """One with fp32, fp16 and its rounding proof, and int8 by name."""
    pytest.importorskip("onnxruntime.transformers.float16")
    from services.trainer.stages.half import rounded, to_half

    variants = [Precision.FP32, Precision.FP16, Precision.INT8]
    tiny.write(tmp_path, described=tiny.spec(variants=variants))
    (tmp_path / graph_file(Precision.FP16)).write_bytes(to_half(tiny.graph()).SerializeToString())
    (tmp_path / graph_file(Precision.INT8)).write_bytes(tiny.graph().SerializeToString())
    proof = tmp_path / "proof"
    tiny.write(proof, rounded(tiny.graph()))
    return tmp_path


def scores(engine: OrtEngine) -> list[list[float]]:
    return [row.scores for row in engine.run([text.ids for text in engine.tokenise(TEXTS)])]


def test_fp16_answers_as_its_proof_padded_batches_included(artifact: Path) -> None:
    on_cuda = OrtEngine.load(artifact, Precision.FP16, Device.CUDA)
    proof = OrtEngine.load(artifact / "proof", Precision.FP32, Device.CPU)
    np.testing.assert_allclose(scores(on_cuda), scores(proof), atol=5e-3)
    alone = [on_cuda.run([text.ids])[0].scores for text in on_cuda.tokenise(TEXTS)]
    np.testing.assert_allclose(alone, scores(on_cuda), atol=5e-3)


def test_fp16_is_near_fp32_there(artifact: Path) -> None:
    half, full = (OrtEngine.load(artifact, precision, Device.CUDA) for precision in (Precision.FP16, Precision.FP32))
    np.testing.assert_allclose(scores(half), scores(full), atol=1e-2)
    assert np.argmax(scores(half), axis=1).tolist() == np.argmax(scores(full), axis=1).tolist()


def test_int8_is_never_opened_there(artifact: Path) -> None:
    with pytest.raises(ArtifactRefused, match="int8 variant is not meant for cuda"):
        OrtEngine.load(artifact, Precision.INT8, Device.CUDA)
    assert (artifact / SPEC_FILE).is_file()


async def test_a_replica_there_serves_fp16_of_all_that_passed(artifact: Path) -> None:
    models = LoadedModels(device_for("auto"))
    variants = [Precision.INT8, Precision.FP32, Precision.FP16]
    models.apply(deployment(1, target(1).model_copy(update={"precision": Precision.INT8, "variants": variants})))
    (action,) = models.plan()
    assert isinstance(action, BringUp)
    desired = action.desired.key
    assert desired.precision is Precision.FP16

    def load(folder: Path, precision: Precision) -> OrtEngine:
        return OrtEngine.load(folder, precision, models.device)

    limits = Limits(capacity=512, rows=64, tokens=32_768, padding=0.15)
    pool = WorkerPool(limits, 2, load=load, monotonic=time.monotonic, observe=lambda *_: None)
    await pool.start()
    try:
        await pool.load(desired, artifact, desired.precision)
        deadline = time.monotonic() + 30
        requests = [EngineRequest(desired, EMBEDDING, EmbeddingRequest([text]), deadline) for text in TEXTS]
        answers = await asyncio.gather(*(anext(pool.submit(request)) for request in requests))
    finally:
        await pool.stop()
    assert len(answers) == len(TEXTS)
    assert key(1) != desired  # which is its fp32
