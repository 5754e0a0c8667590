"""Models that generate, as onnxruntime-genai's builder makes them: exported, checked, and decoded together."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import onnx
import pytest

from services.contracts.artifact import (
    SPEC_FILE,
    TEMPLATE_FILE,
    TOKENIZER_FILE,
    DecoderSpec,
    Precision,
    graph_file,
    weights_file,
)
from services.contracts.errors import BadField
from services.contracts.tasks import GENERATION
from services.contracts.tasks.errors import PromptTooLong
from services.contracts.tasks.generation import GenerationRequest, GenerationResult, Message, SamplingOptions
from services.inference.domain.scoring import Done, EngineRequest, StepFacts
from services.inference.domain.versions import VersionKey
from services.inference.errors import ArtifactRefused, DeadlinePassed, QueueFull, VersionNotServed
from services.inference.outbound.checking import check
from services.inference.outbound.generation.batcher import MEASURED_PIECES, Pieces
from services.inference.outbound.generation.engines import GenerationEngines, GenerationLimits
from services.inference.outbound.generation.token_bytes import token_bytes
from services.kit.core.clock import SystemClock
from services.trainer.errors import ExportFailed
from services.trainer.stages.decoder.export import export_decoder
from tests.fixtures.decoders import FAMILIES, TEXT, tiny_decoder, tokenizer

pytestmark = pytest.mark.slow
GREEDY: Final = SamplingOptions(temperature=0)
PROMPTS: Final = ("Reads", "the file whose path is given", TEXT, "holds, a line")


@dataclass(frozen=True)
class Exported:
    model: Any
    folder: Path
    spec: DecoderSpec


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """Of each family one, made when it is first needed; a llama's has an int8 variant too."""
    made: dict[str, Exported] = {}

    def export(family: str) -> Exported:
        if family not in made:
            folder = tmp_path_factory.mktemp(family)
            model = tiny_decoder(family, folder / "source")
            precisions = [Precision.FP32, Precision.INT8] if family == "llama" else [Precision.FP32]
            spec = export_decoder(folder / "source", folder / "artifact", family, precisions)
            made[family] = Exported(model, folder / "artifact", spec)
        return made[family]

    return export


@dataclass(frozen=True)
class Serving:
    """One loaded version."""

    engines: GenerationEngines
    key: VersionKey
    steps: list[StepFacts]

    async def events(self, request: GenerationRequest, seconds: float = 30) -> AsyncIterator[Any]:
        engine_request = EngineRequest(self.key, GENERATION, request, SystemClock().monotonic() + seconds)
        async for event in self.engines.submit(engine_request):
            yield event

    async def answer(self, request: GenerationRequest, seconds: float = 30) -> GenerationResult:
        """Whose parts, put together, are the answers."""
        parts: dict[int, str] = {}
        async for event in self.events(request, seconds):
            if isinstance(event, Done):
                result: GenerationResult = event.result
                assert [parts[choice.index] for choice in result.choices] == [choice.text for choice in result.choices]
                return result
            parts[event.chunk.index] = parts.get(event.chunk.index, "") + event.chunk.text
        raise AssertionError("no result")


@asynccontextmanager
async def serving(
    exported: Exported, precision: Precision = Precision.FP32, pieces: Pieces = MEASURED_PIECES, **limits: int
) -> AsyncIterator[Serving]:
    steps: list[StepFacts] = []
    engines = GenerationEngines(
        GenerationLimits(**{"rows": 4, "cache_tokens": 2_048, **limits}),
        clock=SystemClock(),
        new_seed=lambda: 11,
        observe=steps.append,
        pieces=pieces,
    )
    key = VersionKey("chat", 1, "0" * 64, precision)
    await engines.load(key, exported.folder, precision)
    try:
        yield Serving(engines, key, steps)
    finally:
        await engines.stop()


def by_transformers(exported: Exported, prompt: str, tokens: int) -> list[bytes]:
    """The likeliest tokens, without one that ends the answer."""
    words = tokenizer()
    ids = words(prompt, return_tensors="pt").input_ids
    made = exported.model.generate(ids, max_new_tokens=tokens, do_sample=False)[0][ids.shape[1] :].tolist()
    return [token_bytes(words.backend_tokenizer, token) for token in made if token not in exported.spec.end_token_ids]


@pytest.mark.parametrize("family", FAMILIES)
async def test_requests_that_arrive_one_after_the_other_are_answered_as_by_transformers(
    exported: Callable[[str], Exported], family: str
) -> None:
    model = exported(family)
    check(model.folder, Precision.FP32, rows=4)
    async with serving(model) as replica:
        await replica.engines.warm(replica.key)

        async def later(number: int, prompt: str) -> list[bytes]:
            await asyncio.sleep(0.003 * number)
            request = GenerationRequest(inputs=[prompt], max_tokens=12 + 5 * number, sampling=GREEDY, top_logprobs=0)
            return [one.token for one in (await replica.answer(request)).choices[0].logprobs]

        answers = await asyncio.gather(*(later(number, prompt) for number, prompt in enumerate(PROMPTS)))
    assert answers == [by_transformers(model, prompt, 12 + 5 * number) for number, prompt in enumerate(PROMPTS)]


def requests() -> list[GenerationRequest]:
    """A dozen of mixed options, whose prompts share beginnings."""
    options = [
        SamplingOptions(seed=1),
        SamplingOptions(seed=2, temperature=0.7, top_p=0.9),
        SamplingOptions(seed=3, temperature=1.5, top_k=40),
        SamplingOptions(seed=4, min_p=0.02, frequency_penalty=0.5, presence_penalty=0.3, repetition_penalty=1.2),
    ]
    prompts = [TEXT, TEXT + " And", TEXT[:40]]
    return [
        GenerationRequest(inputs=[prompt], max_tokens=8 + 3 * number, sampling=sampling)
        for number, (prompt, sampling) in enumerate((prompt, one) for prompt in prompts for one in options)
    ]


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8])
async def test_the_same_seed_gives_the_same_text_in_any_company_with_any_cache_and_in_any_pieces(
    exported: Callable[[str], Exported], precision: Precision
) -> None:
    model = exported("llama")
    async with serving(model, precision, prefix_cache_mib=0) as replica:
        alone = [(await replica.answer(request)).choices[0] for request in requests()]
    texts = [choice.text for choice in alone]
    assert len(set(texts)) > 9, "they differ among each other, or nothing is shown"
    async with serving(model, precision) as replica:
        together = await asyncio.gather(*(replica.answer(request) for request in requests()))
        assert [result.choices[0].text for result in together] == texts
        assert max(facts.tokens for facts in replica.steps if not facts.is_prompt) == 4, "they did decode together"
        again = [await replica.answer(request) for request in reversed(requests())]
        assert [result.choices[0].text for result in reversed(again)] == texts
        assert all(result.cached_tokens >= 8 for result in again)
    async with serving(model, precision, Pieces(shared=2, alone=3), prefix_cache_mib=0) as replica:
        pieces = await asyncio.gather(*(replica.answer(request) for request in requests()))
        assert [result.choices[0].text for result in pieces] == texts
        assert max(facts.tokens for facts in replica.steps if facts.is_prompt) <= 4


async def test_several_answers_differ_and_each_comes_again_with_the_seed(exported: Callable[[str], Exported]) -> None:
    request = GenerationRequest(
        inputs=["Reads", "the file"], max_tokens=12, choices=3, sampling=SamplingOptions(seed=5)
    )
    async with serving(exported("llama")) as replica:
        first, second = await replica.answer(request), await replica.answer(request)
    texts = [choice.text for choice in first.choices]
    assert [choice.index for choice in first.choices] == list(range(6))
    assert len(set(texts[:3])) == 3
    assert texts == [choice.text for choice in second.choices]
    words = tokenizer()
    assert first.prompt_tokens == sum(len(words(prompt).input_ids) for prompt in request.inputs)


async def test_a_conversation_is_rendered_by_the_models_template(exported: Callable[[str], Exported]) -> None:
    model = exported("llama")
    conversation = (Message("developer", "Be short."), Message("user", "Reads what?"))
    rendered = tokenizer().apply_chat_template(
        [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Reads what?"}],
        add_generation_prompt=True,
        tokenize=False,
    )
    async with serving(model) as replica:
        results = [
            await replica.answer(GenerationRequest(inputs=[prompt], max_tokens=10, sampling=GREEDY))
            for prompt in (conversation, rendered)
        ]
    assert results[0].choices == results[1].choices
    assert results[0].prompt_tokens == results[1].prompt_tokens


async def test_a_model_without_a_template_refuses_messages_and_continues_texts(
    exported: Callable[[str], Exported], tmp_path: Path
) -> None:
    model = copied(exported("llama"), tmp_path)
    (model.folder / TEMPLATE_FILE).unlink()
    async with serving(model) as replica:
        assert (await replica.answer(GenerationRequest(inputs=["Reads"], max_tokens=2))).completion_tokens > 0
        with pytest.raises(BadField, match="no chat template") as refused:
            await replica.answer(GenerationRequest(inputs=[(Message("user", "Hi"),)]))
    assert refused.value.field == "inputs[0]"


async def test_what_the_template_does_not_take_is_the_callers_mistake(
    exported: Callable[[str], Exported], tmp_path: Path
) -> None:
    model = copied(exported("llama"), tmp_path)
    (model.folder / TEMPLATE_FILE).write_text("{{ raise_exception('roles must alternate') }}")
    async with serving(model) as replica:
        with pytest.raises(BadField, match="roles must alternate"):
            await replica.answer(GenerationRequest(inputs=[(Message("user", "Hi"),)]))


async def test_an_answer_ends_before_a_stop_text(exported: Callable[[str], Exported]) -> None:
    request = GenerationRequest(inputs=["Reads"], max_tokens=30, sampling=SamplingOptions(seed=3))
    async with serving(exported("llama")) as replica:
        full = (await replica.answer(request)).choices[0]
        stop = full.text[5:8]
        short = (await replica.answer(replace(request, stop=[stop]))).choices[0]
    assert short.text == full.text[: full.text.index(stop)]
    assert short.finish_reason == "stop"


async def test_an_answer_ends_at_its_limit_or_at_an_end_token(exported: Callable[[str], Exported]) -> None:
    end = exported("llama").spec.end_token_ids[0]
    async with serving(exported("llama")) as replica:
        limited = await replica.answer(GenerationRequest(inputs=["Reads"], max_tokens=3, sampling=GREEDY))
        certain = SamplingOptions(temperature=0, logit_bias={end: 100.0})
        ended = await replica.answer(GenerationRequest(inputs=["Reads"], max_tokens=3, sampling=certain))
    assert (limited.choices[0].finish_reason, limited.completion_tokens) == ("length", 3)
    assert (ended.choices[0].finish_reason, ended.choices[0].text, ended.completion_tokens) == ("stop", "", 0)


async def test_log_probabilities_are_given_a_token(exported: Callable[[str], Exported]) -> None:
    request = GenerationRequest(inputs=["Reads"], max_tokens=6, sampling=GREEDY, top_logprobs=2)
    async with serving(exported("llama")) as replica:
        choice = (await replica.answer(request)).choices[0]
    assert len(choice.logprobs) == 6
    for one in choice.logprobs:
        assert one.logprob == one.top[0].logprob > one.top[1].logprob
        assert one.token == one.top[0].token
    assert b"".join(one.token for one in choice.logprobs).decode("utf-8", "replace").startswith(choice.text[:3])


async def test_a_prompt_that_does_not_fit_is_refused_with_its_numbers(exported: Callable[[str], Exported]) -> None:
    async with serving(exported("llama"), cache_tokens=256) as replica:
        with pytest.raises(PromptTooLong, match="256 tokens, not 1 of the prompt and 300 of the answer"):
            await replica.answer(GenerationRequest(inputs=["R"], max_tokens=300))
        with pytest.raises(PromptTooLong):
            await replica.answer(GenerationRequest(inputs=["R " * 400]))
        assert replica.engines.queued == 0


async def test_a_caller_who_leaves_frees_the_row_at_once(exported: Callable[[str], Exported]) -> None:
    async with serving(exported("llama"), rows=1) as replica:
        events = replica.events(GenerationRequest(inputs=["Reads"], max_tokens=500, sampling=SamplingOptions(seed=1)))
        await anext(events)
        before = len(replica.steps)
        await events.aclose()  # type: ignore[attr-defined]
        other = await replica.answer(GenerationRequest(inputs=["the file"], max_tokens=2, sampling=GREEDY))
        assert other.completion_tokens == 2
        drawn = [facts for facts in replica.steps[before:] if not facts.is_prompt]
        assert len(drawn) < 50, "the first went on"
        assert replica.engines.queued == 0


async def test_a_deadline_ends_an_answer_that_waits_and_one_under_way(exported: Callable[[str], Exported]) -> None:
    async with serving(exported("llama"), rows=1) as replica:
        long = GenerationRequest(
            inputs=["Reads"], max_tokens=500, sampling=SamplingOptions(seed=1, logit_bias={2: -100})
        )

        async def passes(seconds: float) -> None:
            with pytest.raises(DeadlinePassed):
                await replica.answer(long, seconds)

        await asyncio.gather(passes(0.02), passes(0.02))
        assert (await replica.answer(GenerationRequest(inputs=["a"], max_tokens=1))).completion_tokens == 1


async def test_more_than_may_wait_is_refused(exported: Callable[[str], Exported]) -> None:
    async with serving(exported("llama"), waiting=2) as replica:
        with pytest.raises(QueueFull):
            await replica.answer(GenerationRequest(inputs=["a", "b", "c"], max_tokens=1))


async def test_answers_under_way_end_in_an_error_when_the_version_is_unloaded(
    exported: Callable[[str], Exported],
) -> None:
    async with serving(exported("llama")) as replica:
        events = replica.events(GenerationRequest(inputs=["Reads"], max_tokens=500))
        await anext(events)
        await replica.engines.unload(replica.key)
        with pytest.raises(VersionNotServed, match="Version 1 of 'chat'"):
            async for _ in events:
                pass


def copied(exported: Exported, folder: Path) -> Exported:
    for path in exported.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return replace(exported, folder=folder)


def location(entry: str, value: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / graph_file(Precision.FP32)
        model = onnx.load_model(path, load_external_data=False)
        tensor = next(one for one in model.graph.initializer if one.external_data)
        next(one for one in tensor.external_data if one.key == entry).value = value
        onnx.save_model(model, path)

    return change


def described(**fields: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        spec = json.loads((folder / SPEC_FILE).read_bytes())
        (folder / SPEC_FILE).write_text(json.dumps(spec | fields))

    return change


def written(name: str, content: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_text(content)

    return change


def truncated(folder: Path) -> None:
    path = folder / weights_file(Precision.FP32)
    path.write_bytes(path.read_bytes()[:-100])


def not_finite(folder: Path) -> None:
    path = folder / weights_file(Precision.FP32)
    path.write_bytes(b"\xff" * path.stat().st_size)


BREACHES: Final[Sequence[tuple[str, Callable[[Path], None]]]] = (
    ("external_data", location("location", "../secret")),
    ("external_data", location("location", "other.data")),
    ("lying_sizes", location("offset", "100000000")),
    ("lying_sizes", location("length", "4")),
    ("lying_sizes", location("length", "many")),
    ("lying_sizes", truncated),
    ("not_finite", not_finite),
    ("wrong_outputs", described(vocabulary_size=1_000)),
    ("fails_to_run", described(head_size=8)),
    ("bad_spec", described(end_token_ids=[])),
    ("missing_variant", described(variants=["int8"])),
    ("bad_template", written(TEMPLATE_FILE, "{% for %}")),
    ("bad_template", written(TEMPLATE_FILE, "{{ raise_exception('no') }}")),
    ("bad_tokenizer", written(TOKENIZER_FILE, "{}")),
)


@pytest.mark.parametrize(("code", "breach"), BREACHES)
def test_an_artifact_that_is_not_sound_is_refused(
    exported: Callable[[str], Exported], tmp_path: Path, code: str, breach: Callable[[Path], None]
) -> None:
    folder = copied(exported("llama"), tmp_path).folder
    check(folder, Precision.FP32, rows=4)
    breach(folder)
    with pytest.raises(ArtifactRefused) as refused:
        check(folder, Precision.FP32, rows=4)
    assert refused.value.reason_code == code
    assert str(tmp_path) not in str(refused.value)


def test_what_the_builder_does_not_know_is_an_error_with_its_words(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama", "architectures": ["NoSuchModel"]}')
    with pytest.raises(ExportFailed) as failed:
        export_decoder(tmp_path, tmp_path / "artifact", "none", [Precision.FP32])
    assert failed.value.details["reason"]
