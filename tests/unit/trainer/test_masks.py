"""What is learned of a conversation, against masks made by hand for four families of templates."""

from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from services.kit.core.tabular import BadRow, UnusableData
from services.trainer.errors import EndlessTurns, PromptIsNoPrefix
from services.trainer.stages.decoder.conversations import ChatMessage, Conversation
from services.trainer.stages.decoder.masks import IGNORED, Example, Masker, bounded

ROW = Conversation(
    1, (ChatMessage("user", "Hi"), ChatMessage("assistant", "Yes?"), ChatMessage("user", "2 + 2")), "It is 4."
)
LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content"
    " + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + m.content + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)
HEADER = "<|start_header_id|>{}<|end_header_id|>\n\n"
FAMILIES = {
    "llama-3": (
        LLAMA_3,
        ("<|begin_of_text|>", "<|eot_id|>", ["<|start_header_id|>", "<|end_header_id|>"]),
        "<|begin_of_text|>" + HEADER.format("user") + "Hi<|eot_id|>" + HEADER.format("assistant") + "Yes?<|eot_id|>"
        + HEADER.format("user") + "2 + 2<|eot_id|>" + HEADER.format("assistant"),
        "It is 4.<|eot_id|>",
    ),
    "chatml": (
        CHATML,
        ("<|endoftext|>", "<|endoftext|>", ["<|im_start|>", "<|im_end|>"]),
        ("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes?<|im_end|>\n"
         "<|im_start|>user\n2 + 2<|im_end|>\n<|im_start|>assistant\n"),
        "It is 4.<|im_end|>",
    ),
    "gemma": (
        GEMMA,
        ("<bos>", "<eos>", ["<start_of_turn>", "<end_of_turn>"]),
        ("<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nYes?<end_of_turn>\n"
         "<start_of_turn>user\n2 + 2<end_of_turn>\n<start_of_turn>model\n"),
        "It is 4.<end_of_turn>",
    ),
    "mistral": (
        MISTRAL,
        ("<s>", "</s>", []),
        "<s>[INST] Hi [/INST] Yes?</s>[INST] 2 + 2 [/INST]",
        " It is 4.</s>",
    ),
}  # fmt: skip


def tokenizer_with(template: str | None, tokens: tuple[str, str, list[str]]) -> Any:
    """A token a byte, and the special ones."""
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    characters = Tokenizer(models.BPE(vocab={character: index for index, character in enumerate(alphabet)}, merges=[]))
    characters.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    characters.decoder = decoders.ByteLevel()
    begin, end, others = tokens
    characters.add_special_tokens([AddedToken(token, special=True) for token in dict.fromkeys((begin, end, *others))])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=characters, bos_token=begin, eos_token=end)
    tokenizer.chat_template = template
    return tokenizer


def chatml(template: str = CHATML) -> Any:
    return tokenizer_with(template, FAMILIES["chatml"][1])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_answer_and_the_end_of_its_turn_alone_are_learned(family: str) -> None:
    template, tokens, prompt, answer = FAMILIES[family]
    tokenizer = tokenizer_with(template, tokens)
    unlearned, learned = (tokenizer.encode(part, add_special_tokens=False) for part in (prompt, answer))
    example = Masker(tokenizer).example(ROW)
    assert list(example.ids) == [*unlearned, *learned]
    assert example.labels == [IGNORED] * len(unlearned) + learned


def test_a_model_without_a_template_learns_the_text_after_the_prompt_and_the_end_of_texts() -> None:
    tokenizer = tokenizer_with(None, FAMILIES["mistral"][1])
    example = Masker(tokenizer).example(Conversation(1, (ChatMessage("user", "2 + 2 ="),), "4"))
    assert tokenizer.decode(example.ids[example.prompt_tokens :]) == " 4</s>"
    with pytest.raises(BadRow):
        Masker(tokenizer).example(ROW)


@pytest.mark.parametrize(
    ("template", "error"),
    [
        pytest.param("{{ messages | length }}" + CHATML, PromptIsNoPrefix, id="counts-its-messages"),
        pytest.param(CHATML.replace("assistant\n", "assistant\n<think>"), PromptIsNoPrefix, id="thinks-when-asked"),
        pytest.param(CHATML.replace("<|im_end|>", "").replace("<|im_start|>", "# "), EndlessTurns, id="never-ends"),
        pytest.param(CHATML.replace("{% for", "{{ nothing.at.all }}{% for"), BadRow, id="breaks"),
        pytest.param(CHATML.replace("m.content", "''"), EndlessTurns,
                     id="writes-no-answer"),
    ],
)  # fmt: skip
def test_a_template_without_a_mask_is_refused_with_the_row(template: str, error: type[UnusableData]) -> None:
    with pytest.raises(error) as caught:
        Masker(chatml(template)).example(ROW)
    assert caught.value.row == 1


def test_what_a_template_says_of_messages_is_passed_on() -> None:
    masker = Masker(tokenizer_with(GEMMA, FAMILIES["gemma"][1]))
    with pytest.raises(BadRow, match="System role not supported"):
        masker.example(Conversation(3, (ChatMessage("system", "Be brief."), ChatMessage("user", "Hi")), "Yes?"))


def test_a_token_across_the_border_is_refused_as_nobody_could_generate_it() -> None:
    tokenizer = chatml()
    tokenizer.add_tokens(["\nIt"])
    with pytest.raises(PromptIsNoPrefix):
        Masker(tokenizer).example(ROW)


def test_rows_over_the_bound_are_cut_at_the_end_and_counted() -> None:
    examples = [Example(1, (5, 6, 7, 8), 2), Example(2, (5, 6, 7, 8, 9, 10), 2), Example(3, (5,) * 6, 4)]
    shortened, lengths = bounded(examples, 4)
    assert [(example.number, example.ids, example.truncated) for example in shortened] == [
        (1, (5, 6, 7, 8), False),
        (2, (5, 6, 7, 8), True),
    ]
    assert (lengths.rows, lengths.truncated, lengths.dropped) == (2, 1, 1)
    assert (lengths.prompt_tokens, lengths.completion_tokens) == (4, 4)
