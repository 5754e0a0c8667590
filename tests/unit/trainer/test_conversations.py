"""Rows to learn answers from, and every way in which one is none."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.kit.core.tabular import UnusableData
from services.trainer.domain.spec import Limits, Split
from services.trainer.stages.decoder.conversations import (
    ChatMessage,
    Conversation,
    ConversationColumns,
    read_conversations,
)

LIMITS = Limits(max_bytes=50_000, max_rows=50, max_text_characters=100)
GOOD: dict[str, Any] = {"prompt": "Hi", "completion": "Yes?"}


def conversations(path: Path, *rows: Any, columns: ConversationColumns | None = None) -> list[Conversation]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(read_conversations(path, "jsonl", columns or ConversationColumns(), LIMITS))


def message(role: Any, content: Any = "text", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def test_both_forms_of_a_row_are_read(tmp_path: Path) -> None:
    talk = [message("system", "Be brief."), message("user", "Hi"), message("assistant", " Yes?\n")]
    assert conversations(tmp_path / "rows", GOOD, {"messages": talk}) == [
        Conversation(1, (ChatMessage("user", "Hi"),), "Yes?"),
        Conversation(2, (ChatMessage("system", "Be brief."), ChatMessage("user", "Hi")), "Yes?"),
    ]


def test_a_csv_has_prompts_and_completions_under_names_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("question,answer,part,user\nHi,Yes?,test,u1\n")
    columns = ConversationColumns(prompt="question", completion="answer", split="part", group="user")
    assert list(read_conversations(path, "csv", columns, LIMITS)) == [
        Conversation(1, (ChatMessage("user", "Hi"),), "Yes?", Split.TEST, "u1")
    ]


@pytest.mark.parametrize(
    ("row", "code", "problem"),
    [
        pytest.param({"text": "x"}, "missing_column", "prompt or messages", id="neither-form"),
        pytest.param({"prompt": "x"}, "missing_column", "completion", id="no-completion"),
        pytest.param({"prompt": "x", "completion": " "}, "bad_row", "completion is empty", id="empty-completion"),
        pytest.param({"prompt": None, "completion": "x"}, "bad_row", "prompt is empty", id="empty-prompt"),
        pytest.param({"prompt": ["x"], "completion": "x"}, "bad_row", "neither text", id="list-for-prompt"),
        pytest.param({"prompt": "x" * 60, "completion": "y" * 60}, "text_too_long", "100", id="too-long"),
        pytest.param({"messages": "x"}, "bad_row", "no list", id="text-for-messages"),
        pytest.param({"messages": [message("assistant")]}, "bad_row", "no list", id="answer-alone"),
        pytest.param({"messages": [message("user")] * 201}, "bad_row", "no list", id="too-many-messages"),
        pytest.param({"messages": ["x", "y"]}, "bad_row", "message 1 is no JSON object", id="text-for-message"),
        pytest.param({"messages": [message("user"), message("bot")]}, "bad_row", "role of message 2", id="bad-role"),
        pytest.param({"messages": [message(["user"]), message("user")]}, "bad_row", "role of", id="list-for-role"),
        pytest.param({"messages": [message("user", 1), message("user")]}, "bad_row", "content of", id="number"),
        pytest.param({"messages": [message("user", x=1), message("user")]}, "bad_row", "field x", id="unknown-field"),
        pytest.param({"messages": [message("user")] * 2}, "bad_row", "not the assistant's", id="no-answer"),
        pytest.param({"messages": [message("user"), message("assistant", "")]}, "bad_row", "is empty", id="empty"),
        pytest.param({"messages": [message("system"), message("assistant")]}, "bad_row", "prompt is", id="no-user"),
        pytest.param(
            {"messages": [message("user"), message("system"), message("assistant")]}, "bad_row", "system", id="late"
        ),
    ],
)
def test_a_row_that_is_no_conversation_is_refused_with_its_number(
    tmp_path: Path, row: Any, code: str, problem: str
) -> None:
    with pytest.raises(UnusableData, match=problem) as caught:
        conversations(tmp_path / "rows", GOOD, row)
    assert (caught.value.code, caught.value.row) == (code, 2)


def test_an_unknown_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableData) as caught:
        conversations(tmp_path / "rows", {**GOOD, "part": "dev"}, columns=ConversationColumns(split="part"))
    assert (caught.value.code, caught.value.row) == ("unknown_split", 1)
