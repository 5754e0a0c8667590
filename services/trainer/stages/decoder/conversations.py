"""Rows to learn answers from: `prompt` and `completion`, or `messages` that end with the assistant's."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.kit.core.tabular import (
    BadRow,
    Format,
    MissingColumn,
    Records,
    RowLimits,
    TextTooLong,
    UnusableData,
    field_of,
)
from services.trainer.domain.spec import Limits, Split
from services.trainer.errors import UnknownSplit

ROLES: Final = ("system", "user", "assistant", "tool")
MAX_MESSAGES: Final = 200


@dataclass(frozen=True)
class ConversationColumns:
    """Which column holds what. A row with the column `messages` is read by it alone."""

    prompt: str = "prompt"
    completion: str = "completion"
    messages: str = "messages"
    split: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class ChatMessage:
    role: str
    content: str


@dataclass(frozen=True)
class Conversation:
    """Turns before an answer, and the answer, without white space around it. `number` is the row's, from 1."""

    number: int
    prompt: tuple[ChatMessage, ...]
    completion: str
    split: Split | None = None
    group: str | None = None


def read_conversations(
    path: Path, form: Format, columns: ConversationColumns, limits: Limits
) -> Iterator[Conversation]:
    """Every row of the file. Raises a kind of UnusableData at the first row that cannot be read."""
    with Records(path, form, RowLimits(limits.max_bytes, limits.max_rows, limits.max_text_characters)) as records:
        for number, record in records:
            if isinstance(record, UnusableData):
                raise record
            yield _conversation(number, record, columns, limits)


def _conversation(
    number: int, record: Mapping[str, object], columns: ConversationColumns, limits: Limits
) -> Conversation:
    if columns.messages in record:
        messages = _messages(number, record[columns.messages], columns.messages)
    elif columns.prompt in record:
        prompt = field_of(number, record, columns.prompt).strip()
        messages = (
            ChatMessage("user", prompt),
            ChatMessage("assistant", field_of(number, record, columns.completion).strip()),
        )
    else:
        names = ", ".join(sorted(map(str, record))[:20])
        raise MissingColumn(column=f"{columns.prompt} or {columns.messages}", found=names, row=number)
    _check_messages(number, messages, limits)
    split = field_of(number, record, columns.split).strip() if columns.split else ""
    if split and split not in tuple(Split):
        raise UnknownSplit(row=number, split=split[:50])
    group = field_of(number, record, columns.group) if columns.group else None
    return Conversation(number, messages[:-1], messages[-1].content, Split(split) if split else None, group)


def _messages(number: int, value: object, column: str) -> tuple[ChatMessage, ...]:
    if not isinstance(value, list) or not 2 <= len(value) <= MAX_MESSAGES:
        raise BadRow(row=number, problem=f"the column {column} is no list of 2 to {MAX_MESSAGES} messages")
    return tuple(_message(number, index, message) for index, message in enumerate(value, 1))


def _message(number: int, index: int, message: object) -> ChatMessage:
    if not isinstance(message, dict):
        raise BadRow(row=number, problem=f"message {index} is no JSON object")
    unknown = sorted(str(key)[:50] for key in message.keys() - {"role", "content"})
    if unknown:
        raise BadRow(row=number, problem=f"message {index} has the field {unknown[0]}, which is not supported")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or role not in ROLES:
        raise BadRow(row=number, problem=f"the role of message {index} is none of {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise BadRow(row=number, problem=f"the content of message {index} is not text")
    return ChatMessage(role, content.strip())


def _check_messages(number: int, messages: tuple[ChatMessage, ...], limits: Limits) -> None:
    if messages[-1].role != "assistant":
        raise BadRow(row=number, problem="its last message is not the assistant's")
    if not messages[-1].content:
        raise BadRow(row=number, problem="its completion is empty")
    if not any(message.role == "user" and message.content for message in messages):
        raise BadRow(row=number, problem="its prompt is empty")
    if any(message.role == "system" for message in messages[1:]):
        raise BadRow(row=number, problem="a system message is not the first")
    if sum(len(message.content) for message in messages) > limits.max_text_characters:
        raise TextTooLong(row=number, limit=limits.max_text_characters)
