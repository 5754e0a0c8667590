"""Stage 3: what the trained model, a plain baseline and the present champion answer on the test rows.

Shapes: N rows, C labels, D width.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from services.contracts.artifact import SPEC_FILE, TOKENIZER_FILE, ModelSpec, graph_file
from services.trainer.domain.spec import Split, Stage
from services.trainer.stages.base_model import find_base_model
from services.trainer.stages.baseline import BaselineBeside
from services.trainer.stages.batches import Batch, by_length, encode
from services.trainer.stages.encoder import Classifier
from services.trainer.stages.folder import Finished, RunFolder, hash_of
from services.trainer.stages.graphs import Floats, Graph, Outputs, gather
from services.trainer.stages.prepare import Prepared, Row, load_rows
from services.trainer.stages.scores import Labels, label_numbers, macro_f1
from services.trainer.stages.spec import Champion, RunSpec
from services.trainer.stages.train import Trained, load_trained

LOGITS_FILE: Final = "torch.logits.npy"
EMBEDDING_FILE: Final = "torch.embedding.npy"
CHAMPION_FILE: Final = "champion.answers.npy"
UNKNOWN: Final = -1
"""A champion's answer that is no label of this data set: never right."""
SCORING_BATCH: Final = 16


class Evaluated(Finished):
    torch_macro_f1: float
    tfidf_macro_f1: float


def evaluate(folder: RunFolder, spec: RunSpec, prepared: Prepared, trained: Trained) -> Evaluated:
    """Writes torch's logits and embeddings of the test rows, and the champion's answers where there is one."""
    rows = load_rows(folder, Split.TEST)
    truth_N = label_numbers(rows, prepared.labels)
    base = find_base_model(spec.base_model)
    ids = encode(base.tokenizer(), [row.text for row in rows], spec.recipe.max_length)
    with BaselineBeside(folder) as baseline:
        own = _answer(folder, spec, prepared, truth_N, ids)
        if spec.champion is not None:
            _score_champion(folder, spec.champion, rows, truth_N, prepared.labels)
        tfidf = baseline.macro_f1()
    folder.report(Stage.EVALUATE, 1.0, "baseline answered", {"tfidf_macro_f1": tfidf})
    return Evaluated(inputs=evaluate_inputs(spec, trained), torch_macro_f1=own, tfidf_macro_f1=tfidf)


def evaluate_inputs(spec: RunSpec, trained: Trained) -> str:
    return hash_of(Stage.EVALUATE, trained.inputs, spec.champion)


def _answer(
    folder: RunFolder, spec: RunSpec, prepared: Prepared, truth_N: Labels, ids: Sequence[Sequence[int]]
) -> float:
    """Keeps torch's logits and embeddings; the macro F1 of its answers."""
    pad_id = find_base_model(spec.base_model).pad_token_id
    outputs = _score(load_trained(folder, spec, prepared), ids, pad_id)
    save_array(folder, LOGITS_FILE, outputs.logits_NC)
    save_array(folder, EMBEDDING_FILE, outputs.embedding_ND)
    own = macro_f1(truth_N, outputs.answers)
    folder.report(Stage.EVALUATE, 0.5, "test rows answered", {"macro_f1": own})
    return own


def _score_champion(
    folder: RunFolder, champion: Champion, rows: Sequence[Row], truth_N: Labels, labels: Sequence[str]
) -> None:
    answers_N = champion_answers(champion, rows, labels)
    save_array(folder, CHAMPION_FILE, answers_N)
    right = float((answers_N == truth_N).mean())
    folder.report(Stage.EVALUATE, 0.8, f"champion {champion.version} answered", {"accuracy": right})


def champion_answers(champion: Champion, rows: Sequence[Row], labels: Sequence[str]) -> Labels:
    """Label numbers of this data set, UNKNOWN where the champion names a label that it does not have."""
    from tokenizers import Tokenizer

    its = ModelSpec.model_validate_json((champion.folder / SPEC_FILE).read_bytes())
    tokenizer = Tokenizer.from_file(str(champion.folder / TOKENIZER_FILE))
    tokenizer.no_padding()
    ids = encode(tokenizer, [row.text for row in rows], its.max_length)
    graph = Graph(champion.folder / graph_file(champion.precision))
    answers_N = graph.run_all(by_length(ids, SCORING_BATCH, its.pad_token_id)).answers
    number = {label: index for index, label in enumerate(labels)}
    return np.array([number.get(its.labels[answer], UNKNOWN) for answer in answers_N], dtype=np.int64)


def save_array(folder: RunFolder, name: str, array: NDArray[np.generic]) -> None:
    """A .npy file, in one step; never with pickled objects."""
    with (folder / f"{name}.partial").open("wb") as file:
        np.save(file, array, allow_pickle=False)
    folder.commit(folder / f"{name}.partial", name)


def load_array(folder: RunFolder, name: str) -> NDArray[np.float32]:
    array: NDArray[np.float32] = np.load(folder / name, allow_pickle=False)
    return array


def _score(model: Classifier, ids: Sequence[Sequence[int]], pad_id: int) -> Outputs:
    def answer(batch: Batch) -> tuple[Batch, Floats, Floats]:
        logits_BC, embedding_BD = model(torch.from_numpy(batch.ids_BT), torch.from_numpy(batch.mask_BT))
        return batch, logits_BC.numpy(), embedding_BD.numpy()

    with torch.inference_mode():
        return gather([answer(batch) for batch in by_length(ids, SCORING_BATCH, pad_id)])
