"""The demo's data: real texts, clean, distinct and the same for the same seed."""

import json
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

from demo import corpus
from demo.corpus import LABELS, Corpus, Text
from demo.docstrings import human, mask_for, text_of
from services.kit.core.duplicates import first_likes, normalised

READS = pytest.mark.slow  # every docstring of the library, and of packages with thousands


@pytest.fixture(scope="module")
def built() -> Corpus:
    return corpus.build(seed=0)


def every(built: Corpus) -> list[Text]:
    return [*built.data_set, *built.quiet, *built.shifted, *built.shifted_unseen]


@READS
def test_it_is_large_enough_for_the_scenario(built: Corpus) -> None:
    assert Counter(row.split for row in built.data_set) == {"train": 1000, "test": 500, "reference": 500}
    assert 400 <= len(built.quiet) <= 1500
    assert len(built.shifted) >= 500
    assert len(built.shifted_unseen) >= 500


@READS
def test_every_label_is_in_every_part(built: Corpus) -> None:
    for part in (built.data_set, built.quiet, built.shifted, built.shifted_unseen):
        counts = Counter(row.label for row in part)
        assert set(counts) == set(LABELS)
        assert min(counts.values()) >= 25


@READS
def test_no_text_comes_twice_nor_nearly(built: Corpus) -> None:
    texts = [row.text for row in every(built)]
    assert all(like is None for like in first_likes(texts))


@READS
def test_shifted_texts_of_the_two_halves_share_no_module(built: Corpus) -> None:
    assert not {row.module for row in built.shifted} & {row.module for row in built.shifted_unseen}
    assert {row.source for row in built.data_set} == {"stdlib"}
    assert "stdlib" not in {row.source for row in built.shifted}


@READS
def test_texts_are_language_and_do_not_name_their_module(built: Corpus) -> None:
    for row in every(built):
        assert 60 <= len(row.text) <= corpus.TEXT_CHARACTERS
        assert "\n" not in row.text
        assert not re.search(r"https?://|:class:|>>>", row.text)
        assert not re.search(rf"\b{re.escape(row.module.rpartition('.')[2].strip('_'))}\b", row.text, re.IGNORECASE)


@READS
def test_the_same_seed_gives_the_same_corpus_and_another_seed_another_split(built: Corpus) -> None:
    assert corpus.build(seed=0) == built
    assert corpus.build(seed=1).data_set != built.data_set


@READS
def test_reading_imports_none_of_the_packages() -> None:
    assert "torch.fx" not in sys.modules or "torch" in sys.modules
    before = set(sys.modules)
    corpus.shifted_texts()
    assert not {name for name in set(sys.modules) - before if name.split(".")[0] in {"sqlalchemy", "torch", "scipy"}}


def dealt(train: int, test: int) -> list[Text]:
    return [
        Text(f"text {number}", LABELS[number % len(LABELS)], "module", "stdlib", "train" if number < train else "test")
        for number in range(train + test)
    ]


def test_spoiling_changes_about_half_of_the_training_labels_and_no_other() -> None:
    rows = dealt(train=1000, test=500)
    spoiled = corpus.spoiled(rows)
    changed = [old.split for old, new in zip(rows, spoiled, strict=True) if old.label != new.label]
    assert set(changed) == {"train"}
    assert 380 <= len(changed) <= 560
    assert Counter(row.label for row in spoiled) == Counter(row.label for row in rows)


def test_rows_are_written_as_json_lines(tmp_path: Path) -> None:
    written = dealt(train=2, test=1)
    corpus.write_jsonl(written, tmp_path / "rows.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["text"] for row in rows] == [row.text for row in written]
    assert set(rows[0]) == {"text", "label", "module", "source", "split"}


def test_a_text_is_made_of_name_and_first_paragraphs() -> None:
    document = """Copy the file at `source`, see :func:`~shutil.move`, https://example.org/x.

    The mode bits of the file are kept as they are.

    Args:
        source: the file
    """
    made = text_of("Copier.copy_file", document, mask_for(["shutil", "move"]))
    assert made == (
        "copier copy file: Copy the file at source , see module.module, The mode bits of the file are kept as they are."
    )
    assert text_of("f", "Too short.", mask_for(["x"])) is None
    assert human("PurePath.with_suffix") == "pure path with suffix"


def test_near_duplicates_are_found_exactly() -> None:
    texts = ["the cat sat on the mat today", "The cat sat on the mat today!", "the cat sat on the mat", "a dog", ""]
    assert first_likes(texts) == [None, 0, 0, None, None]
    assert normalised("A  b,C") == "a b c"
