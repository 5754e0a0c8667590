"""The engine on CUDA, where a device is there."""

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest

from services.contracts.artifact import Device, Precision
from services.contracts.tasks import CLASSIFICATION
from services.contracts.tasks.classification import ClassificationRequest
from services.inference.domain.batching import Limits
from services.inference.domain.scoring import BatchFacts, Done, EngineRequest
from services.inference.outbound.engine import CUDA, OrtEngine, cuda_is_there, device_for, open_session
from services.inference.outbound.pool import WorkerPool
from tests.unit.inference import tiny
from tests.unit.inference.builders import key

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def cuda() -> None:
    if not cuda_is_there():
        # A skip under CI too: no runner of ours has a device.
        pytest.skip("CUDA device: ONNX Runtime was not built for CUDA, or the driver finds no device")


def test_the_session_runs_on_the_device_and_not_beside_it(tmp_path: Path) -> None:
    session = open_session(tiny.write(tmp_path) / "fp32.onnx", Device.CUDA)
    assert session.get_providers()[0] == CUDA
    assert OrtEngine.load(tmp_path, Precision.FP32, device_for("auto")).device is Device.CUDA


def test_answers_are_those_of_the_cpu_padded_batches_included(tmp_path: Path) -> None:
    tiny.write(tmp_path)
    on_cuda = OrtEngine.load(tmp_path, Precision.FP32, Device.CUDA)
    on_cpu = OrtEngine.load(tmp_path, Precision.FP32, Device.CPU)
    read = on_cpu.tokenise([" ".join(tiny.WORDS[: 1 + number % 14]) for number in range(64)])
    rows = [text.ids for text in read]
    expected = [row.scores for row in on_cpu.run(rows)]
    # TensorFloat-32 rounds the factors of a product to ten bits: scores differed by up to 1.4e-4 on an H100.
    np.testing.assert_allclose([row.scores for row in on_cuda.run(rows)], expected, atol=5e-4)
    np.testing.assert_allclose([on_cuda.run([row])[0].scores for row in rows], expected, atol=5e-4)


async def scores(pool: WorkerPool) -> tuple[float, ...]:
    request = EngineRequest(key(1), CLASSIFICATION, ClassificationRequest(["read the file"]), time.monotonic() + 30)
    (event,) = [event async for event in pool.submit(request)]
    assert isinstance(event, Done)
    return tuple(part.score for part in event.result.predictions[0].scores)


async def test_requests_that_come_together_share_large_batches(tmp_path: Path) -> None:
    tiny.write(tmp_path)
    seen: list[BatchFacts] = []

    def load(folder: Path, precision: Precision) -> OrtEngine:
        return OrtEngine.load(folder, precision, Device.CUDA)

    limits = Limits(capacity=512, rows=64, tokens=32_768, padding=0.15)
    pool = WorkerPool(limits, 2, load=load, monotonic=time.monotonic, observe=lambda _tenant, facts: seen.append(facts))
    await pool.start()
    try:
        await pool.load(key(1), tmp_path, Precision.FP32)
        await pool.warm(key(1))
        answers = await asyncio.gather(*(scores(pool) for _ in range(512)))
    finally:
        await pool.stop()
    assert len(set(answers)) == 1
    assert max(facts.rows for facts in seen) > 8
