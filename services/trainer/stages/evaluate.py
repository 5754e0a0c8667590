"""Stage 3: what the trained model, a plain baseline and the present champion answer on the test rows.

Shapes: N rows, C labels, D width.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from services.contracts.artifact import SPEC_FILE, TOKENIZER_FILE, ModelSpec, graph_file
from services.trainer.domain.spec import Champion, RunSpec, Split, Stage
from services.trainer.stages.base_model import BaseModel, find_base_model
from services.trainer.stages.batches import Batch, by_length, encode
from services.trainer.stages.encoder import Classifier
from services.trainer.stages.folder import Finished, RunFolder, hash_of
from services.trainer.stages.graphs import Floats, Graph, Outputs, gather
from services.trainer.stages.prepare import Prepared, Row, load_rows
from services.trainer.stages.scores import Labels, macro_f1
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
    ids = encode(base.tokenizer(), [row.text for row in rows], sequence_length(spec, base))
    outputs = _score(load_trained(folder, spec, prepared), ids, base.pad_token_id)
    save_array(folder, LOGITS_FILE, outputs.logits_NC)
    save_array(folder, EMBEDDING_FILE, outputs.embedding_ND)
    own = macro_f1(truth_N, outputs.answers)
    folder.tell(Stage.EVALUATE, 0.5, "test rows answered", {"macro_f1": own})
    if spec.champion is not None:
        answers_N = champion_answers(spec.champion, rows, prepared.labels, spec.threads)
        save_array(folder, CHAMPION_FILE, answers_N)
        right = float((answers_N == truth_N).mean())
        folder.tell(Stage.EVALUATE, 0.8, f"champion {spec.champion.version} answered", {"accuracy": right})
    tfidf = _tfidf_macro_f1(load_rows(folder, Split.TRAIN), rows, prepared.labels, spec.recipe.seed)
    folder.tell(Stage.EVALUATE, 1.0, "baseline answered", {"tfidf_macro_f1": tfidf})
    return Evaluated(inputs=evaluate_inputs(spec, trained), torch_macro_f1=own, tfidf_macro_f1=tfidf)


def evaluate_inputs(spec: RunSpec, trained: Trained) -> str:
    return hash_of(Stage.EVALUATE, trained.inputs, spec.champion)


def sequence_length(spec: RunSpec, base: BaseModel) -> int:
    """Tokens a text is cut to."""
    return min(spec.recipe.max_length, base.longest)


def label_numbers(rows: Sequence[Row], labels: Sequence[str]) -> Labels:
    number = {label: index for index, label in enumerate(labels)}
    return np.array([number[row.label] for row in rows], dtype=np.int64)


def champion_answers(champion: Champion, rows: Sequence[Row], labels: Sequence[str], threads: int) -> Labels:
    """Label numbers of this data set, UNKNOWN where the champion names a label that it does not have."""
    from tokenizers import Tokenizer

    its = ModelSpec.model_validate_json((champion.folder / SPEC_FILE).read_bytes())
    tokenizer = Tokenizer.from_file(str(champion.folder / TOKENIZER_FILE))
    tokenizer.no_padding()
    ids = encode(tokenizer, [row.text for row in rows], its.max_length)
    graph = Graph(champion.folder / graph_file(champion.precision), threads)
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


def _tfidf_macro_f1(train: Sequence[Row], test: Sequence[Row], labels: Sequence[str], seed: int) -> float:
    """Words and word pairs, weighted by TF-IDF, and logistic regression: what a new model must be better than."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    known = vectorizer.fit_transform([row.text for row in train])
    regression = LogisticRegression(C=10.0, max_iter=200, random_state=seed)
    regression.fit(known, label_numbers(train, labels))
    answers_N = regression.predict(vectorizer.transform([row.text for row in test]))
    return macro_f1(label_numbers(test, labels), np.asarray(answers_N, dtype=np.int64))
