"""Clean, distinct rows, each in the split where it belongs."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from services.contracts.training import Columns
from services.kit.core.clock import SystemClock
from services.kit.core.tabular import UnusableData
from services.trainer.domain.spec import PROGRESS_FILE, DataContent, Limits, Progress, Split
from services.trainer.stages.folder import RunFolder
from services.trainer.stages.prepare import ROWS_FILE, Prepared, clean, hash_fraction, prepare
from services.trainer.stages.reading import read_content, read_rows
from services.trainer.stages.spec import RunSpec
from tests.unit.trainer.tiny import texts, write_jsonl


def prepared(root: Path, rows: list[dict[str, Any]], **changes: Any) -> tuple[Prepared, list[dict[str, Any]]]:
    root.mkdir(parents=True, exist_ok=True)
    data = write_jsonl(root / "data.jsonl", rows)
    if "feedback" in changes:
        changes["feedback"] = write_jsonl(root / "feedback.jsonl", changes["feedback"])
    spec = RunSpec.model_validate({"run": "run-1", "model": "m", "dataset": "d", "data": data} | changes)
    result = prepare(RunFolder(root, SystemClock()), spec)
    return result, [json.loads(line) for line in (root / ROWS_FILE).read_text().splitlines()]


def splits(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {row["text"]: row["split"] for row in rows}


def test_exact_and_near_repeats_are_removed_and_contradictions_on_both_sides(tmp_path: Path) -> None:
    rows = texts(240)
    long = max(rows, key=lambda row: len(row["text"]))
    extra = [
        {"text": rows[0]["text"].upper() + " !", "label": rows[0]["label"]},
        {"text": long["text"] + " indeed", "label": long["label"]},
        {"text": rows[1]["text"], "label": rows[2]["label"]},
        {"text": "  ", "label": "fruit"},
    ]
    result, limit = prepared(tmp_path, [*rows, *extra])
    assert (result.dropped.repeated, result.dropped.contradictory, result.dropped.empty) == (2, 2, 1)
    assert rows[1]["text"] not in splits(limit)


def test_a_test_row_stays_a_test_row_when_the_data_set_grows(tmp_path: Path) -> None:
    recipe = {"test_rows": 40, "reference_rows": 50}
    _, before = prepared(tmp_path / "a", texts(240), recipe=recipe)
    _, after = prepared(tmp_path / "b", [*texts(240), *texts(240, seed=9)], recipe=recipe)
    old, new = splits(before), splits(after)
    assert all(new[text] != Split.TEST for text, split in old.items() if split == Split.TRAIN)
    assert sum(split == Split.TEST for split in new.values()) == pytest.approx(40, abs=20)


def test_feedback_leaves_every_base_row_in_its_split_and_brings_its_own_slice(tmp_path: Path) -> None:
    _, before = prepared(tmp_path / "a", texts(240))
    feedback = [*texts(150, seed=5), {"text": "a word of another kind", "label": "unheard"}, texts(240)[0]]
    result, after = prepared(tmp_path / "b", texts(240), feedback=feedback)
    old, new = splits(before), splits([row for row in after if row["source"] == "base"])
    assert new == {text: old[text] for text in new}
    assert {row["split"] for row in after if row["source"] == "feedback"} == {"train", "test", "reference"}
    assert result.dropped.unknown_label == 1
    assert result.sources["feedback"] == pytest.approx(150, abs=3)


def test_feedback_makes_up_half_of_the_reference_rows(tmp_path: Path) -> None:
    _, rows = prepared(tmp_path, texts(600), feedback=texts(400, seed=5))
    reference = [row["source"] for row in rows if row["split"] == "reference"]
    assert reference.count("feedback") == pytest.approx(reference.count("base"), abs=1)


def test_rows_of_one_group_fall_into_one_split(tmp_path: Path) -> None:
    rows = [{**row, "page": f"page {number // 5}"} for number, row in enumerate(texts(400))]
    _, limit = prepared(tmp_path, rows, columns={"group": "page"})
    seen: dict[str, set[str]] = {}
    for row in limit:
        seen.setdefault(row["group"], set()).add(row["split"])
    assert all(len(matches) == 1 for matches in seen.values())


def test_an_explicit_split_wins(tmp_path: Path) -> None:
    names = ["train", "train", "test", "reference"]
    rows = [{**row, "part": names[number // 3 % 4]} for number, row in enumerate(texts(240))]
    result, limit = prepared(tmp_path, rows, columns={"split": "part"})
    expected = {clean(row["text"]): row["part"] for row in rows}
    assert splits(limit) == {text: expected[text] for text in splits(limit)}
    assert result.splits[Split.TEST] == 60


def test_the_same_rows_have_the_same_hash_and_other_rows_another(tmp_path: Path) -> None:
    first, _ = prepared(tmp_path / "a", texts(240))
    again, _ = prepared(tmp_path / "b", texts(240))
    other, _ = prepared(tmp_path / "c", texts(239))
    assert first.data_hash == again.data_hash != other.data_hash


@pytest.mark.parametrize(
    ("rows", "code", "row"),
    [
        pytest.param([], "empty_data", None, id="nothing"),
        pytest.param([{"text": "", "label": "a"}, {"text": "x", "label": ""}], "empty_data", 1, id="all-missing"),
        pytest.param([{**row, "label": "fruit"} for row in texts(90)], "one_class", 1, id="one-class"),
        pytest.param([*texts(90), {"text": "a lone word", "label": "rare"}], "too_few_rows", 91, id="rare-class"),
        pytest.param(texts(45), "too_few_rows", None, id="too-small-to-split"),
        pytest.param([{"text": f"word{n}", "label": str(n)} for n in range(9)], "too_many_labels", 6, id="labels"),
    ],
)
def test_data_that_cannot_be_trained_on_is_refused_with_the_row(
    tmp_path: Path, rows: list[dict[str, Any]], code: str, row: int | None
) -> None:
    with pytest.raises(UnusableData) as caught:
        prepared(tmp_path, rows, limits={"max_labels": 5})
    assert (caught.value.code, caught.value.row) == (code, row)


def test_what_was_read_is_reported_with_its_hash_its_size_and_its_rows(tmp_path: Path) -> None:
    result, _ = prepared(tmp_path, texts(240))
    written = (tmp_path / "data.jsonl").read_bytes()
    matches = DataContent(sha256=hashlib.sha256(written).hexdigest(), size_bytes=len(written), rows=240)
    assert result.content == matches
    assert [step.content for step in output(tmp_path) if step.content] == [matches]


def test_a_file_that_is_not_the_announced_one_is_refused_before_its_rows_are_read(tmp_path: Path) -> None:
    with pytest.raises(UnusableData) as caught:
        prepared(tmp_path, [], content_hash="0" * 64)
    assert (caught.value.code, caught.value.field) == ("content_changed", "content_hash")
    again, _ = prepared(tmp_path, texts(240))
    prepared(tmp_path, texts(240), content_hash=again.content.sha256)


def test_a_file_whose_rows_cannot_be_read_is_known_by_its_content_all_the_same(tmp_path: Path) -> None:
    with pytest.raises(UnusableData):
        prepared(tmp_path, [*texts(2), {"text": 1.5, "label": "a"}])
    (step,) = output(tmp_path)
    assert step.content is not None
    assert (step.content.size_bytes, step.content.rows) == ((tmp_path / "data.jsonl").stat().st_size, None)


def test_a_file_that_is_written_while_it_is_read_is_refused(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "data.jsonl", texts(20))
    content = read_content(data, Limits())
    rows = read_rows(data, "jsonl", Columns(), Limits(), content)
    next(rows)
    with data.open("ab") as file:
        file.write(b'{"text": "added", "label": "a"}\n')
    with pytest.raises(UnusableData) as caught:
        list(rows)
    assert caught.value.code == "content_changed"


def output(root: Path) -> list[Progress]:
    return [Progress.model_validate_json(line) for line in (root / PROGRESS_FILE).read_text().splitlines()]


def test_cleaning_drops_control_characters_and_composes_accents() -> None:
    assert clean("cafe\u0301 \x07 now\r\n") == "caf\u00e9 now"


def test_the_hash_spreads_texts_evenly() -> None:
    positions = sorted(hash_fraction(str(number)) for number in range(2000))
    assert max(abs(position - index / 2000) for index, position in enumerate(positions)) < 0.04
