"""The words of an artifact: file names cannot leave its folder, and a spec says enough to serve it."""

import pytest
from pydantic import ValidationError

from services.contracts.artifact import (
    Device,
    ManifestFile,
    ModelSpec,
    Precision,
    baseline_file,
    best_variant,
    graph_file,
)


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


@pytest.mark.parametrize(
    ("passed", "host", "card"),
    [
        ("fp32 fp16 int8 int4", "int8", "fp16"),
        ("fp32 int8", "int8", "fp32"),
        ("fp32 fp16", "fp32", "fp16"),
        ("fp32 int4", "int4", "fp32"),
        ("int8", "int8", None),
        ("fp16", None, "fp16"),
        ("", None, None),
    ],
)
def test_each_device_serves_the_best_of_what_passed_and_is_meant_for_it(
    passed: str, host: str | None, card: str | None
) -> None:
    precisions = [Precision(name) for name in passed.split()]
    assert best_variant(precisions, Device.CPU) == host
    assert best_variant(precisions, Device.CUDA) == card


def test_an_artifact_that_names_no_devices_is_served_by_the_kind_of_its_variants() -> None:
    described = {
        "labels": ["a", "b"], "max_length": 16, "embedding_width": 4, "base_model": "x",
        "variants": list(Precision),
    }  # fmt: skip
    silent = ModelSpec.model_validate(described)
    assert silent.meant_for(Precision.INT8) == [Device.CPU]
    assert silent.meant_for(Precision.FP16) == [Device.CUDA]
    assert silent.meant_for(Precision.FP32) == [Device.CPU, Device.CUDA]
    named = ModelSpec.model_validate(described | {"devices": {"int4": ["cpu"]}})
    assert named.meant_for(Precision.INT4) == [Device.CPU]
