"""Stage 6: the artifact folder, with a drift baseline a variant, and the scores of the variant that is to be served."""

import json
import os
import shutil
from collections.abc import Sequence
from typing import Final

import numpy as np

from services.contracts.artifact import (
    EVALUATION_FILE,
    SPEC_FILE,
    TOKENIZER_FILE,
    ModelSpec,
    Precision,
    baseline_file,
    devices_of,
    graph_file,
)
from services.contracts.training import Comparison, Metrics
from services.trainer.domain.spec import ARTIFACT_FOLDER, BASE, FEEDBACK, Split, Stage
from services.trainer.stages.base_model import BaseModel, find_base_model
from services.trainer.stages.batches import by_length, encode
from services.trainer.stages.compress import LOGITS_FILES, Compressed, proof_graph
from services.trainer.stages.evaluate import (
    CHAMPION_FILE,
    SCORING_BATCH,
    Evaluated,
    load_array,
)
from services.trainer.stages.folder import Finished, RunFolder, hash_of
from services.trainer.stages.graphs import Graph
from services.trainer.stages.prepare import Prepared, Row, load_rows
from services.trainer.stages.scores import Labels, label_numbers, paired, score
from services.trainer.stages.spec import RunSpec

_PARTIAL_FOLDER: Final = f"{ARTIFACT_FOLDER}.partial"


class Packaged(Finished):
    metrics: Metrics
    comparison: Comparison | None


def package(
    folder: RunFolder, spec: RunSpec, prepared: Prepared, evaluated: Evaluated, compressed: Compressed
) -> Packaged:
    """Writes `artifact/` as `services/contracts/artifact.py` lays it out, without manifest and signature.

    A variant that failed its gate is left out of it.
    """
    packaged = _scores(folder, spec, prepared, evaluated, compressed)
    folder.report(Stage.PACKAGE, 0.2, "scores of the served variant", {"macro_f1": packaged.metrics.overall().macro_f1})
    base = find_base_model(spec.base_model)
    target = folder / _PARTIAL_FOLDER
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    passed = compressed.passed()
    width = 0
    for precision in passed:
        _link(folder, graph_file(precision))
        width = _write_baseline(folder, spec, base, precision)
        folder.report(
            Stage.PACKAGE, 0.2 + 0.7 * (passed.index(precision) + 1) / len(passed), f"baseline of {precision}"
        )
    model = ModelSpec(
        labels=prepared.labels,
        max_length=spec.recipe.max_length,
        pad_token_id=base.pad_token_id,
        embedding_width=width,
        base_model=base.name,
        variants=passed,
        devices={precision: devices_of(precision) for precision in passed},
    )
    (target / SPEC_FILE).write_text(model.model_dump_json(indent=1))
    base.tokenizer().save(str(target / TOKENIZER_FILE), pretty=False)
    (target / EVALUATION_FILE).write_text(_report(prepared, evaluated, compressed, packaged))
    _settle(folder)
    folder.report(Stage.PACKAGE, 1.0, "artifact complete")
    return packaged


def package_inputs(spec: RunSpec, evaluated: Evaluated, compressed: Compressed) -> str:
    return hash_of(Stage.PACKAGE, evaluated.inputs, compressed.inputs)


def _scores(
    folder: RunFolder, spec: RunSpec, prepared: Prepared, evaluated: Evaluated, compressed: Compressed
) -> Packaged:
    rows = load_rows(folder, Split.TEST)
    truth_N = label_numbers(rows, prepared.labels)
    answers_N = load_array(folder, LOGITS_FILES[compressed.served().precision]).argmax(1)
    slices = _slices(rows)
    metrics = Metrics(
        slices=[score(name, truth_N[chosen], answers_N[chosen], spec.recipe.seed) for name, chosen in slices],
        tfidf_macro_f1=evaluated.tfidf_macro_f1,
        train_rows=prepared.splits[Split.TRAIN],
        test_rows=prepared.splits[Split.TEST],
    )
    comparison = None
    if spec.champion is not None:
        champion_N = load_array(folder, CHAMPION_FILE).astype(np.int64)
        pairs = [paired(name, truth_N[chosen], answers_N[chosen], champion_N[chosen]) for name, chosen in slices]
        comparison = Comparison(champion=spec.champion.version, slices=pairs)
    inputs = package_inputs(spec, evaluated, compressed)
    return Packaged(inputs=inputs, metrics=metrics, comparison=comparison)


def _slices(rows: Sequence[Row]) -> list[tuple[str, Labels]]:
    """All rows, and each source of them where there is more than one."""
    slices = [("all", np.arange(len(rows), dtype=np.int64))]
    for source in (BASE, FEEDBACK):
        chosen = np.array([index for index, row in enumerate(rows) if row.source == source], dtype=np.int64)
        if 0 < len(chosen) < len(rows):
            slices.append((source, chosen))
    return slices


def _write_baseline(folder: RunFolder, spec: RunSpec, base: BaseModel, precision: Precision) -> int:
    """Embeddings of the reference rows by this very variant: fp32's and int8's differ enough to look like drift."""
    texts = [row.text for row in load_rows(folder, Split.REFERENCE)]
    ids = encode(base.tokenizer(), texts, spec.recipe.max_length)
    graph = Graph(folder / proof_graph(precision))
    embedding_ND = graph.run_all(by_length(ids, SCORING_BATCH, base.pad_token_id)).embedding_ND
    np.save(folder / _PARTIAL_FOLDER / baseline_file(precision), embedding_ND.astype("<f4"), allow_pickle=False)
    return int(embedding_ND.shape[1])


def _link(folder: RunFolder, name: str) -> None:
    """A hard link costs nothing where a copy costs a graph's size."""
    target = folder / _PARTIAL_FOLDER / name
    try:
        target.hardlink_to(folder / name)
    except OSError:
        shutil.copyfile(folder / name, target)


def _report(prepared: Prepared, evaluated: Evaluated, compressed: Compressed, packaged: Packaged) -> str:
    report = {
        "data": prepared.model_dump(mode="json", exclude={"inputs"}),
        "torch_macro_f1": evaluated.torch_macro_f1,
        "metrics": packaged.metrics.model_dump(mode="json"),
        "comparison": packaged.comparison.model_dump(mode="json") if packaged.comparison else None,
        "variants": [variant.model_dump(mode="json") for variant in compressed.variants],
    }
    return json.dumps(report, indent=1)


def _settle(folder: RunFolder) -> None:
    """Syncs every file and gives the folder its name, replacing one that an earlier attempt left."""
    partial, final = folder / _PARTIAL_FOLDER, folder / ARTIFACT_FOLDER
    for path in partial.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    shutil.rmtree(final, ignore_errors=True)
    folder.commit(partial, ARTIFACT_FOLDER)
