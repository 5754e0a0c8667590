"""The words of an artifact: file names cannot leave its folder, and a spec says enough to serve it."""

import pytest
from pydantic import ValidationError

from services.contracts.artifact import ManifestFile, ModelSpec, Precision, baseline_file, graph_file


@pytest.mark.parametrize("name", ["", "../a", "a/b", "/a", ".hidden", "a\\b", "a\x00", "a\n", "é.onnx", "a" * 101])
def test_a_manifest_names_only_plain_files_of_its_own_folder(name: str) -> None:
    with pytest.raises(ValidationError):
        ManifestFile(name=name, size_bytes=1, sha256="a" * 64)


def test_each_precision_has_a_graph_and_a_baseline_of_its_own() -> None:
    names = {graph_file(precision) for precision in Precision} | {baseline_file(precision) for precision in Precision}
    assert len(names) == 2 * len(Precision)
    assert all(ManifestFile(name=name, size_bytes=1, sha256="a" * 64) for name in names)


def spec(**changes: object) -> ModelSpec:
    given = {
        "labels": ["files", "data"],
        "max_length": 64,
        "embedding_width": 384,
        "base_model": "all-MiniLM-L6-v2",
        "variants": ["fp32", "int8"],
    }
    return ModelSpec.model_validate(given | changes)


def test_a_spec_from_a_newer_trainer_is_understood() -> None:
    assert spec(added_later=1) == spec()


@pytest.mark.parametrize(
    "changes",
    [{"labels": ["one"]}, {"max_length": 4}, {"embedding_width": 0}, {"variants": []}, {"variants": ["fp12"]}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_spec_that_cannot_be_served_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        spec(**changes)
