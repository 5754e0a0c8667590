"""What is no base model is refused with a code, the field to change and what to do; nothing of it is run."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from services.contracts.errors import Kind
from services.trainer import errors
from services.trainer.domain.spec import ExitCode, Failure
from services.trainer.errors import UnsupportedBaseModel
from services.trainer.stages.base_model import find_base_model
from services.trainer.stages.encoder import classifier
from tests.unit.trainer.tiny import CONFIGS, base_model, run_folder, runner

pytestmark = pytest.mark.slow  # transformers takes seconds to load

Spoil = Callable[[Path], object]
BOMB = b"cposix\nsystem\n(S'touch unpickled'\ntR."


def refusal_of(name: str) -> UnsupportedBaseModel:
    """Of a base model that is opened as far as training opens it."""
    with pytest.raises(UnsupportedBaseModel) as caught:
        classifier(find_base_model(name), labels=3, seed=0)
    refused = caught.value
    assert refused.body().field == "base_model"
    assert refused.body().hint
    return refused


def config(**changes: object) -> Spoil:
    return lambda folder: (folder / "config.json").write_text(json.dumps({**CONFIGS["bert"], **changes}))


def content(name: str, text: str) -> Spoil:
    return lambda folder: (folder / name).write_text(text)


def without(name: str) -> Spoil:
    return lambda folder: (folder / name).unlink()


def pickle_alone(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(BOMB)


def pickled_shard(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "vocab.bin")
    index = {"metadata": {}, "weight_map": {"embeddings.word_embeddings.weight": "vocab.bin"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def fewer_tensors(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({name: weights[name] for name in weights if "layer.1." not in name}, folder / "model.safetensors")


def cut_off(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def code_of_its_own(folder: Path) -> None:
    own = {"model_type": "marvel", "auto_map": {"AutoConfig": "marvel.Config", "AutoModel": "marvel.Model"}}
    (folder / "config.json").write_text(json.dumps({**CONFIGS["bert"], **own}))
    (folder / "marvel.py").write_text("open('executed', 'w')\n")


def slow_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("<cls>\n<pad>\n<eos>\n<unk>\nA\nC")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "EsmTokenizer"}))


def broken_vocabulary(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text("[")
    (folder / "merges.txt").write_text("")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "RobertaTokenizer"}))


def larger_vocabulary(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["unheard-of"] = 5_000
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (without("config.json"), errors.BadModelConfig, "there is none"),
        (content("config.json", "{"), errors.BadModelConfig, "not JSON"),
        (content("config.json", "[]"), errors.BadModelConfig, "not a JSON object"),
        (content("config.json", "{}"), errors.BadModelConfig, "no model_type"),
        (config(hidden_size="wide"), errors.BadModelConfig, "does not read it as 'bert'"),
        (config(model_type="gpt2"), errors.NotAnEncoder, "'gpt2' has no masked language model"),
        (config(model_type="vit"), errors.NotAnEncoder, "'vit' has no masked language model"),
        (config(model_type="bart"), errors.NotAnEncoder, "this 'bart' has a decoder"),
        (config(is_decoder=True), errors.NotAnEncoder, "this 'bert' has a decoder"),
        (config(model_type="marvel"), errors.NotAnEncoder, "knows no 'marvel'"),
        (code_of_its_own, errors.RemoteCode, "never run"),
        (without("model.safetensors"), errors.NoWeights, "no model.safetensors"),
        (pickle_alone, errors.PickledWeights, "pytorch_model.bin, which is never opened"),
        (pickled_shard, errors.PickledWeights, "vocab.bin, which is never opened"),
        (config(hidden_size=64), errors.WeightsDoNotFit, "cannot load them"),
        (config(num_hidden_layers=3), errors.WeightsDoNotFit, "encoder.layer.2"),
        (fewer_tensors, errors.WeightsDoNotFit, "16 tensors are missing"),
        (cut_off, errors.WeightsDoNotFit, "cannot load them"),
        (without("tokenizer.json"), errors.NoFastTokenizer, "neither a tokenizer.json nor a vocabulary"),
        (broken_vocabulary, errors.NoFastTokenizer, "makes none of its files"),
        (content("tokenizer.json", "{}"), errors.NoFastTokenizer, "cannot be read"),
        (slow_tokenizer, errors.NoFastTokenizer, "written in Python"),
        (larger_vocabulary, errors.TokenizerDoesNotFit, "the token 5000"),
    ],
)
def test_a_folder_that_is_no_base_model_is_refused_by_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Spoil, error: type[Any], says: str
) -> None:
    folder = base_model(tmp_path / "base")
    spoil(folder)
    monkeypatch.chdir(tmp_path)
    refused = refusal_of(str(folder))
    assert type(refused) is error
    assert says in str(refused)
    assert str(tmp_path) not in f"{refused} {refused.hint}"
    assert [path.name for path in tmp_path.iterdir()] == ["base"]  # nothing of the model has run


def test_a_known_architecture_runs_transformers_own_code_and_never_the_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = base_model(tmp_path / "base")
    config(auto_map={"AutoConfig": "marvel.Config", "AutoModel": "marvel.Model"})(folder)
    (folder / "marvel.py").write_text("open('executed', 'w')\n")
    monkeypatch.chdir(tmp_path)
    assert type(classifier(find_base_model(str(folder)), labels=3, seed=0).encoder).__name__ == "BertModel"
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_a_tokenizer_in_older_files_is_read_as_transformers_reads_it(tmp_path: Path) -> None:
    folder = base_model(tmp_path)
    expected = find_base_model(str(folder)).tokenizer()
    words = sorted(expected.get_vocab().items(), key=lambda item: item[1])
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(word for word, _ in words))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    text = "Old IRON and some unknowable rain"
    assert find_base_model(str(folder)).tokenizer().encode(text).ids == expected.encode(text).ids


@pytest.mark.parametrize("name", ["no-such-model", "/no/such/folder", "", "../x/y/z"])
def test_a_name_that_names_nothing_is_refused(name: str) -> None:
    assert type(refusal_of(name)) is errors.UnknownBaseModel


@pytest.mark.parametrize(("kind", "positions"), [("bert", 48), ("roberta", 46)])
def test_a_recipe_longer_than_the_positions_fails_the_run_and_says_how_long_it_may_be(
    tmp_path: Path, kind: str, positions: int
) -> None:
    base = str(base_model(tmp_path / "base", kind))
    folder = run_folder(tmp_path, base_model=base, recipe={"max_length": positions + 1, "epochs": 1})
    assert runner(folder).run() is ExitCode.DATA_REFUSED
    failure = Failure.model_validate_json((folder / "failure.json").read_bytes())
    assert (failure.code, failure.field, failure.retryable) == ("too_few_positions", "recipe.max_length", False)
    assert failure.reason.startswith(f"The base model reads at most {positions} tokens")
    assert failure.hint == f"lower max_length to {positions}, or take a base model that reads more"


# --- a hub: this machine's own, since no other is reached from here

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FETCH = """
import sys
from services.trainer.errors import UnsupportedBaseModel
from services.trainer.stages.base_model import find_base_model, pinned

try:
    base = find_base_model(pinned(sys.argv[1]))
    print(base.name, *sorted(path.name for path in base.folder.iterdir()))
except UnsupportedBaseModel as refused:
    print(refused.code, refused.kind, refused.retryable)
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    """The address of a hub with one model, organisation/tiny."""
    from tests.integration.trainer.hub import serving

    folder = base_model(tmp_path / "on-the-hub")
    (folder / "pytorch_model.bin").write_bytes(BOMB)
    (folder / "modeling_tiny.py").write_text("open('executed', 'w')\n")
    server = serving("organisation/tiny", COMMIT, folder)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(name: str, cache: Path, hub: str, **environment: str) -> list[str]:
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FETCH, name],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(cache), "PYTHONPATH": ".", **environment},
        timeout=120,
    )
    return process.stdout.split()


FETCHED = [f"organisation/tiny@{COMMIT}", "config.json", "model.safetensors", "tokenizer.json"]


def test_a_model_of_a_hub_is_pinned_to_its_commit_and_comes_without_pickle_and_code(tmp_path: Path, hub: str) -> None:
    cache = tmp_path / "cache"
    assert fetch("organisation/tiny", cache, hub) == FETCHED
    nobody = "http://127.0.0.1:9"
    assert fetch("organisation/tiny", cache, nobody) == FETCHED
    assert fetch("organisation/tiny", cache, nobody, HF_HUB_OFFLINE="1") == FETCHED
    assert fetch(f"organisation/tiny@{COMMIT}", cache, nobody) == FETCHED


def test_a_model_that_the_hub_does_not_have_is_refused_for_good(tmp_path: Path, hub: str) -> None:
    assert fetch("organisation/other", tmp_path / "cache", hub) == ["not_on_the_hub", Kind.UNSUPPORTED, "False"]


@pytest.mark.parametrize("environment", [{}, {"HF_HUB_OFFLINE": "1"}])
def test_a_hub_that_cannot_be_reached_is_tried_again_later(tmp_path: Path, environment: dict[str, str]) -> None:
    events = fetch("organisation/tiny", tmp_path / "cache", "http://127.0.0.1:9", **environment)
    assert events == ["hub_unreachable", Kind.UNAVAILABLE, "True"]
