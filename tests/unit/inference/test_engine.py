"""The engine on a real session and a real tokenizer."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from services.contracts.artifact import Device, Precision, graph_file
from services.inference.errors import ArtifactRefused, EngineFailed
from services.inference.outbound.engine import OrtEngine, open_session, open_tokenizer, pad, softmax
from tests.unit.inference import tiny


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> OrtEngine:
    return OrtEngine.load(tiny.write(tmp_path_factory.mktemp("artifact")), Precision.FP32, Device.CPU)


def ids(engine: OrtEngine, *texts: str) -> list[list[int]]:
    return [read.ids for read in engine.tokenise(texts)]


def test_scores_are_probabilities_and_the_embedding_is_of_unit_length(engine: OrtEngine) -> None:
    [scored] = engine.run(ids(engine, "read the file"))
    assert sum(scored.scores) == pytest.approx(1)
    assert len(scored.scores) == len(tiny.LABELS)
    embedding = np.frombuffer(scored.embedding, dtype="<f4")
    assert embedding.shape == (tiny.WIDTH,)
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(np.frombuffer(scored.embedding_half, dtype="<f2"), embedding, atol=1e-3)
    assert scored.tokens == 5


def test_a_row_scores_the_same_alone_and_padded_in_a_batch(engine: OrtEngine) -> None:
    rows = ids(engine, "read", "read the file and close the socket", "mean of float")
    together = engine.run(rows)
    alone = [engine.run([row])[0] for row in rows]
    np.testing.assert_allclose([row.scores for row in together], [row.scores for row in alone], atol=1e-6)


def overflowing_on(word: str) -> onnx.ModelProto:
    """The tiny model, whose logits overflow where the word stands in the text."""
    number = tiny.tokenizer().token_to_id(word)
    constants = [("word", [number], np.int64), ("large", [3e38], np.float32), ("ten", [10.0], np.float32)]
    made = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(value, kind)))
        for name, value, kind in constants
    ]
    made += [
        helper.make_node("Equal", ["input_ids", "word"], ["is_word"]),
        helper.make_node("Cast", ["is_word"], ["flags"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["flags", "second"], ["flag"], keepdims=1),
        helper.make_node("Mul", ["flag", "large"], ["almost"]),
        helper.make_node("Mul", ["almost", "ten"], ["overflow"]),
    ]
    return tiny.graph(made, replaced={"logits": helper.make_node("Add", ["product", "overflow"], ["logits"])})


def test_scores_that_are_no_numbers_are_no_answer_and_other_texts_are_answered(tmp_path: Path) -> None:
    engine = OrtEngine.load(tiny.write(tmp_path, overflowing_on("socket")), Precision.FP32, Device.CPU)
    assert engine.run(ids(engine, "read the file"))
    with pytest.raises(EngineFailed):
        engine.run(ids(engine, "read the file", "close the socket"))


def test_tokens_are_cut_at_the_models_maximum(engine: OrtEngine) -> None:
    long, complete = engine.tokenise(["read " * 500, "read"])
    assert (len(long.ids), long.truncated) == (tiny.MAX_LENGTH, True)
    assert (len(complete.ids), complete.truncated) == (3, False)


def test_rows_of_one_length_need_no_padding_and_others_are_padded_on_the_right() -> None:
    ids, mask = pad([[5, 6], [7]], pad_token_id=9)
    assert ids.tolist() == [[5, 6], [7, 9]]
    assert mask.tolist() == [[1, 1], [1, 0]]
    assert pad([[5], [7]], 9)[1].tolist() == [[1], [1]]


def test_softmax_bears_large_logits() -> None:
    logits = np.array([[1000.0, 0.0], [-1000.0, -1000.0]], dtype=np.float32)
    assert softmax(logits).tolist() == [[1, 0], [0.5, 0.5]]


def test_a_file_that_is_no_graph_is_refused_without_its_path(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"<html>not found</html>")
    with pytest.raises(ArtifactRefused) as caught:
        open_session(tmp_path / "x.onnx", Device.CPU)
    assert caught.value.reason_code == "not_loadable"
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"model": 1}', "\x00"])
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ArtifactRefused):
        open_tokenizer(tmp_path / "tokenizer.json", 16)


def test_warming_runs_every_size_that_is_requested(engine: OrtEngine) -> None:
    engine.warm(4)
    assert engine.loaded.device == "cpu"


@pytest.mark.parametrize(
    ("precision", "device"),
    [(Precision.FP16, Device.CPU), (Precision.INT8, Device.CUDA)],
    ids=["half precision on a CPU", "int8 on a card"],
)
def test_a_variant_is_not_opened_on_a_device_that_it_is_not_meant_for(
    tmp_path: Path, precision: Precision, device: Device
) -> None:
    tiny.write(tmp_path, described=tiny.spec(variants=[Precision.FP32, precision]))
    (tmp_path / graph_file(precision)).write_bytes((tmp_path / "fp32.onnx").read_bytes())
    with pytest.raises(ArtifactRefused, match=f"its {precision} variant is not meant for {device}") as caught:
        OrtEngine.load(tmp_path, precision, device)
    assert caught.value.reason_code == "wrong_device"
