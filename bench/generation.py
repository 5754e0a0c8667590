"""Generation: our engine and onnxruntime-genai's Generator over the same graph, turn by turn, in one process.

The model has the shape of SmolLM2-135M and random weights, as int8. Sixteen requests arrive at once, their prompts and
answers of mixed lengths; the Generator, which answers one request at a time, takes them in turn. A second comparison
is one request alone. Only the engine is measured: what the gateway adds is told by `serving`.
"""

import asyncio
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.report import Figure, at_least
from services.contracts.artifact import Precision, graph_file, weights_file
from services.contracts.tasks import GENERATION
from services.contracts.tasks.generation import GenerationRequest, SamplingOptions
from services.inference.domain.scoring import Done, EngineRequest
from services.inference.domain.versions import VersionKey
from services.inference.outbound.generation.engines import GenerationEngines, GenerationLimits
from services.kit.core.clock import SystemClock
from services.trainer.stages.decoder.export import export_decoder

SECTION: Final = "generation"
ROUNDS: Final = 5
CLIENTS: Final = 16
THREADS: Final = 2
SHAPE: Final[dict[str, Any]] = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49_152,
    "max_position_embeddings": 2_048,
    "tie_word_embeddings": True,
}
END: Final = 2


@dataclass(frozen=True)
class Work:
    """A prompt of one token a character, and how many tokens the answer has."""

    prompt: str
    tokens: int


@dataclass(frozen=True)
class Run:
    """What a round took."""

    tokens: int
    seconds: float
    cpu_seconds: float
    first_tokens: Sequence[float] = ()

    @property
    def per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def per_cpu_second(self) -> float:
        return self.tokens / self.cpu_seconds


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="bench-generation-") as name:
        folder = Path(name)
        _make(folder / "source")
        export_decoder(folder / "source", folder / "artifact", "random", [Precision.INT8])
        generator = _generator(folder)
        return asyncio.run(_compared(folder / "artifact", generator))


def work(clients: int) -> list[Work]:
    return [Work("abcdefgh" * (3 + 5 * (number % 5)), 32 + 16 * (number % 5)) for number in range(clients)]


async def _compared(artifact: Path, generator: Callable[[Sequence[Work]], Run]) -> list[Figure]:
    limits = GenerationLimits(rows=CLIENTS, prefix_cache_mib=0, threads=THREADS)
    engines = GenerationEngines(limits, clock=SystemClock(), new_seed=lambda: 1, observe=lambda _: None)
    key = VersionKey("bench", 1, "0" * 64, Precision.INT8)
    began = time.perf_counter()
    await engines.load(key, artifact, Precision.INT8)
    await _engine(engines, key, work(1))
    cold = time.perf_counter() - began
    generator(work(1))
    alone: list[tuple[Run, Run]] = []
    together: list[tuple[Run, Run]] = []
    for _ in range(ROUNDS):
        alone.append((await _engine(engines, key, work(1)), generator(work(1))))
        together.append((await _engine(engines, key, work(CLIENTS)), generator(work(CLIENTS))))
    await engines.stop()
    return _figures(alone, together, cold)


def _figures(alone: Sequence[tuple[Run, Run]], together: Sequence[tuple[Run, Run]], cold: float) -> list[Figure]:
    def median(pairs: Sequence[tuple[Run, Run]], of: Callable[[Run, Run], float]) -> float:
        return statistics.median(of(ours, theirs) for ours, theirs in pairs)

    ratio = median(together, lambda ours, theirs: ours.per_cpu_second / theirs.per_cpu_second)
    one = median(alone, lambda ours, theirs: ours.per_second / theirs.per_second)
    last_first = median(together, lambda ours, _: max(ours.first_tokens) * 1000)
    both = f"{CLIENTS} at once"
    return [
        Figure(SECTION, f"{both}: tokens a second", median(together, lambda ours, _: ours.per_second), "tokens/s"),
        Figure(SECTION, f"{both}: per CPU-second", median(together, lambda ours, _: ours.per_cpu_second), "tokens"),
        Figure(
            SECTION,
            "Generator, one by one: per CPU-second",
            median(together, lambda _, theirs: theirs.per_cpu_second),
            "tokens",
        ),
        at_least(SECTION, "ours over it, per CPU-second", ratio, "x", 2.0),
        Figure(SECTION, f"{both}: the last first token", last_first, "ms"),
        Figure(SECTION, "one alone: tokens a second", median(alone, lambda ours, _: ours.per_second), "tokens/s"),
        at_least(SECTION, "ours over the Generator, one alone", one, "x", 1.0),
        Figure(SECTION, "from loading to the first answer", cold, "s"),
    ]


async def _engine(engines: GenerationEngines, key: VersionKey, some: Sequence[Work]) -> Run:
    cpu, began = time.process_time(), time.perf_counter()
    results = await asyncio.gather(*(_answer(engines, key, one) for one in some))
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    tokens = sum(count for count, _ in results)
    assert tokens == sum(one.tokens for one in some)
    return Run(tokens, seconds, cpu_seconds, [first for _, first in results])


async def _answer(engines: GenerationEngines, key: VersionKey, one: Work) -> tuple[int, float]:
    """Tokens, and the seconds to the first."""
    sampling = SamplingOptions(temperature=0, logit_bias={END: -100.0})
    request = GenerationRequest(inputs=[one.prompt], max_tokens=one.tokens, sampling=sampling)
    async for event in engines.submit(EngineRequest(key, GENERATION, request, time.monotonic() + 600)):
        if isinstance(event, Done):
            return event.result.completion_tokens, event.result.timing.first_token_ms / 1000
    raise AssertionError("no answer")


def _generator(folder: Path) -> Callable[[Sequence[Work]], Run]:
    """onnxruntime-genai's, over the same graph and weights, with as many threads."""
    import onnxruntime_genai as og

    model_folder = folder / "genai"
    model_folder.mkdir()
    for name in (graph_file(Precision.INT8), weights_file(Precision.INT8)):
        (model_folder / name).hardlink_to(folder / "artifact" / name)
    shutil.copy(folder / "artifact/tokenizer.json", model_folder)
    (model_folder / "genai_config.json").write_text(json.dumps(_genai_config()))
    model = og.Model(str(model_folder))

    def run(some: Sequence[Work]) -> Run:
        cpu, began, tokens = time.process_time(), time.perf_counter(), 0
        for one in some:
            parameters = og.GeneratorParams(model)
            length = len(one.prompt) + one.tokens
            parameters.set_search_options(max_length=length, min_length=length, do_sample=False)
            generator = og.Generator(model, parameters)
            generator.append_tokens([_BYTE_TOKENS[character] for character in one.prompt])
            for _ in range(one.tokens):
                generator.generate_next_token()
            tokens += one.tokens
        return Run(tokens, time.perf_counter() - began, time.process_time() - cpu)

    return run


_BYTE_TOKENS: dict[str, int] = {}


def _make(source: Path) -> None:
    """Random weights, and a tokenizer that has a token a byte."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    words = ["<pad>", "<start>", "<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    _BYTE_TOKENS.update({word: number for number, word in enumerate(words) if len(word) == 1})
    config = LlamaConfig(**SHAPE, pad_token_id=0, bos_token_id=1, eos_token_id=END)
    LlamaForCausalLM(config).save_pretrained(source)
    special = dict(zip(("pad_token", "bos_token", "eos_token"), words, strict=False))
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    wrapped.save_pretrained(source)


def _genai_config() -> dict[str, Any]:
    heads, width = SHAPE["num_attention_heads"], SHAPE["hidden_size"] // SHAPE["num_attention_heads"]
    threads = {"intra_op_num_threads": THREADS, "log_id": "bench", "provider_options": []}
    return {
        "model": {
            "bos_token_id": 1,
            "eos_token_id": END,
            "pad_token_id": 0,
            "context_length": SHAPE["max_position_embeddings"],
            "type": "llama",
            "vocab_size": SHAPE["vocab_size"],
            "decoder": {
                "session_options": threads,
                "filename": graph_file(Precision.INT8),
                "head_size": width,
                "hidden_size": SHAPE["hidden_size"],
                "num_attention_heads": heads,
                "num_hidden_layers": SHAPE["num_hidden_layers"],
                "num_key_value_heads": SHAPE["num_key_value_heads"],
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
            },
        },
        "search": {"past_present_share_buffer": True, "max_length": SHAPE["max_position_embeddings"]},
    }
