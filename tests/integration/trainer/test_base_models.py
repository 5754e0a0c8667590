"""Base models by transformers' Auto classes: four architectures from training to the engine that serves them."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from services.contracts.artifact import Device, Precision, graph_file
from services.inference.outbound.checking import check
from services.inference.outbound.engine import OrtEngine, softmax
from services.kit.storage.artifacts import ArtifactStore
from services.trainer.domain.spec import ExitCode, RunResult, Split
from services.trainer.stages.base_model import find_base_model
from services.trainer.stages.batches import encode, pad
from services.trainer.stages.encoder import classifier
from services.trainer.stages.evaluate import LOGITS_FILE, load_array
from services.trainer.stages.folder import RunFolder
from services.trainer.stages.prepare import load_rows, prepare
from services.trainer.stages.stopping import Stopping
from services.trainer.stages.train import WEIGHTS_FILE, train
from tests.unit.trainer.tiny import CONFIGS, base_model, run_folder, runner

pytestmark = pytest.mark.slow  # every stage for real, for each architecture

KINDS = sorted(CONFIGS)
# a graph this small is no faster in another precision, and rounding hits it harder
GATES = {"int8_speedup": 0.0, "int8_agreement": 0.5, "int8_f1_loss": 0.5}


@pytest.fixture(scope="module", params=KINDS)
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run on one architecture that has succeeded."""
    root = tmp_path_factory.mktemp(str(request.param))
    folder = run_folder(root, base_model=str(base_model(root / "base", str(request.param))), gates=GATES)
    assert runner(folder).run() is ExitCode.SUCCEEDED
    return folder


def engine_of(folder: RunFolder, precision: Precision = Precision.FP32) -> OrtEngine:
    """The replica's engine over the artifact as it lies in the store, hashes and signature checked."""
    result = RunResult.model_validate_json((folder / "result.json").read_bytes())
    store = ArtifactStore((folder / "store").as_uri(), folder / "keys")
    artifact = asyncio.run(store.fetch(result.artifact, folder / "cache"))
    asyncio.run(asyncio.to_thread(check, artifact, precision, 4))
    return OrtEngine.load(artifact, precision, Device.CPU)


def test_the_graph_is_served_as_the_network_was_trained_padded_batches_included(finished: RunFolder) -> None:
    engine = engine_of(finished)
    expected_NC = softmax(load_array(finished, LOGITS_FILE))
    texts = [row.text for row in load_rows(finished, Split.TEST)]
    rows = [text.ids for text in engine.tokenise(texts)]
    assert len({len(row) for row in rows}) > 5  # so that nearly all of them are padded
    np.testing.assert_allclose([row.scores for row in engine.run(rows)], expected_NC, atol=1e-5)
    alone = [engine.run([row])[0].scores for row in rows]
    np.testing.assert_allclose(alone, expected_NC, atol=1e-5)


def test_it_learns(finished: RunFolder) -> None:
    result = RunResult.model_validate_json((finished / "result.json").read_bytes())
    assert result.metrics.overall().accuracy > 0.6  # guessing: 0.33
    assert result.variants[0].max_difference < 1e-4


def test_its_int8_variant_is_served_too(finished: RunFolder) -> None:
    served = engine_of(finished, Precision.INT8).run([[2, 5, 6, 3]])
    assert sum(served[0].scores) == pytest.approx(1.0)
    assert (finished / "artifact" / graph_file(Precision.INT8)).is_file()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path, kind: str) -> None:
    weights = []
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        base = str(base_model(tmp_path / name / "base", kind))
        recipe = {"epochs": 1, "max_length": 32, "batch_size": 8, "seed": seed}
        folder = run_folder(tmp_path / name, base_model=base, recipe=recipe)
        train(folder, folder.spec(), prepare(folder, folder.spec()), Stopping())
        weights.append(load_file(folder / WEIGHTS_FILE))
    first, again, other = weights
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


@pytest.mark.parametrize("kind", KINDS)
def test_word_embeddings_and_the_lowest_layers_stay_as_they_are(tmp_path: Path, kind: str) -> None:
    base = base_model(tmp_path / "base", kind)
    folder = run_folder(tmp_path, base_model=str(base), frozen_layers=1, recipe={"epochs": 1, "max_length": 32})
    train(folder, folder.spec(), prepare(folder, folder.spec()), Stopping())
    learned, layers = set(load_file(folder / WEIGHTS_FILE)), ("layer.0.", "layers.0.")
    assert not {name for name in learned if "embeddings" in name or any(layer in name for layer in layers)}
    assert {name for name in learned if "layer.1." in name or "layers.1." in name}


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_as_long_as_the_positions_is_read_and_none_longer_is_promised(tmp_path: Path, kind: str) -> None:
    model = classifier(find_base_model(str(base_model(tmp_path, kind))), labels=3, seed=0).eval()
    assert model.positions == 48 - (2 if kind == "roberta" else 0)
    tokens_BT = torch.full((2, model.positions), 5)
    logits_BC, _ = model(tokens_BT, torch.ones_like(tokens_BT))
    assert logits_BC.isfinite().all()


def test_the_packaged_weights_bring_texts_of_one_meaning_together() -> None:
    base = find_base_model("all-MiniLM-L6-v2")
    texts = ["A cat sleeps on the sofa.", "The kitten is dozing on the couch.", "The stock market fell by two percent."]
    batch = pad(encode(base.tokenizer(), texts, 64), range(3), base.pad_token_id)
    with torch.inference_mode():
        model = classifier(base, labels=2, seed=0).eval()
        _, embedding_BD = model(torch.from_numpy(batch.ids_BT), torch.from_numpy(batch.mask_BT))
    likeness_BB = (embedding_BD @ embedding_BD.T).numpy()
    assert base.config["model_type"] == "bert"
    assert likeness_BB[0, 1] > 0.6
    assert likeness_BB[0, 2] < 0.2


def test_weights_stored_in_half_precision_or_in_shards_are_trained_in_float32(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    base = base_model(tmp_path)
    weights = load_file(base / "model.safetensors")
    (base / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, held in parts.items():
        save_file({name: weights[name].half() for name in held}, base / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, held in parts.items() for name in held}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    model = classifier(find_base_model(str(base)), labels=2, seed=0)
    matches = dict(model.encoder.named_parameters())
    assert {value.dtype for value in matches.values()} == {torch.float32}
    assert torch.equal(matches[names[0]], weights[names[0]].half().float())
