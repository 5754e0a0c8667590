"""The text of an answer as its tokens come."""

from collections.abc import Iterator
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from services.inference.domain.stopping import StopTexts
from services.inference.outbound.generation.text import AnswerText
from services.inference.outbound.generation.token_bytes import token_bytes


@cache
def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=280, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["the quick brown fox, the lazy dog"] * 3, trainer)
    return tokenizer


@cache
def sentence_piece() -> Tokenizer:
    """Words after a space, and bytes."""
    words = ["<unk>", "\u2581the", "\u2581fox", "es", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=[]))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def number(token: str) -> int:
    return byte_level().get_vocab()[token]


def parts(tokenizer: Tokenizer, ids: list[int], stops: tuple[str, ...] = ()) -> Iterator[str]:
    answer = AnswerText(tokenizer, StopTexts(stops))
    for token in ids:
        yield answer.push(token)
        if answer.stopped:
            return
    yield answer.flush()


@given(st.text(max_size=30))
def test_any_text_comes_complete_and_no_part_holds_half_a_character(text: str) -> None:
    shown = list(parts(byte_level(), byte_level().encode(text).ids))
    assert "".join(shown) == text
    assert "\ufffd" not in "".join(shown) or "\ufffd" in text


def test_a_character_is_shown_once_its_last_token_has_come() -> None:
    ids = byte_level().encode("a€b").ids
    assert len(ids) == 5
    assert list(parts(byte_level(), ids)) == ["a", "", "", "€", "b", ""]


def test_bytes_that_are_no_character_are_shown_as_such_and_hold_nothing_up() -> None:
    alone = number("Ģ")
    shown = list(parts(byte_level(), [alone] * 9 + byte_level().encode("fox").ids))
    assert "".join(shown).strip("\ufffd") == "fox"
    assert "\ufffd" in "".join(shown[:5]), "no later than after four tokens"
    assert "".join(parts(byte_level(), [alone])) == "\ufffd"


def test_a_space_before_a_word_is_shown_between_words_alone() -> None:
    assert list(parts(sentence_piece(), [1, 2, 3, 1])) == ["the", " fox", "es", " the", ""]


def test_special_tokens_are_not_shown() -> None:
    end = number("<|end|>")
    assert "".join(parts(byte_level(), [end, *byte_level().encode("fox").ids, end])) == "fox"


def test_a_stop_text_in_the_last_unfinished_part_is_seen() -> None:
    ids = byte_level().encode("fox€").ids
    assert "".join(parts(byte_level(), ids, ("€",))) == "fox"


@pytest.mark.parametrize("text", ["the fox", "é€😀", " x"])
def test_the_bytes_of_the_tokens_are_those_of_the_text(text: str) -> None:
    ids = byte_level().encode(text).ids
    assert b"".join(token_bytes(byte_level(), token) for token in ids) == text.encode()


def test_bytes_of_sentence_piece_and_of_no_token() -> None:
    tokenizer = sentence_piece()
    assert [token_bytes(tokenizer, token) for token in (1, 3, 4, 10_000)] == [b" the", b"es", b"\x00", b""]
