"""What the trainer refuses. `row` among the facts is the first offending row, counted from 1.

Refusal
├── UnusableData       the data set cannot be trained on; the kit's, with those of files that cannot be read
│   ├── UnknownSplit
│   └── EmptyData, OneClass, TooManyLabels, TooFewRows
├── QualityRefused     the model is not fit to leave
│   └── ParityFailed
├── UnsupportedBaseModel
├── OutOfMemory, BaselineBroke
└── Interrupted        told to stop; not a failure
"""

from services.contracts.errors import Conflict, Kind, NotFound, Refusal, Unsupported
from services.kit.rows import UnusableData


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
    """{what} has {found} usable rows; at least {needed} are needed."""

    hint = "duplicates and contradictory rows do not count"


class QualityRefused(Refusal):
    """The model is not fit to leave: {problem}."""

    kind = Kind.CONFLICT


class ParityFailed(QualityRefused):
    """The exported graph differs from the trained model by {difference:.2g}, more than {limit:.2g}."""


class UnsupportedBaseModel(Unsupported):
    """The base model cannot be used: {problem}."""

    hint = "a BERT encoder as a Hugging Face folder: config.json, model.safetensors, tokenizer.json"


class OutOfMemory(Refusal):
    """The run was stopped: out of memory."""

    hint = "raise MILLRACE_TRAINER_MEMORY_MIB, or lower the recipe's batch_size"


class BaselineBroke(Refusal):
    """The baseline that the model is held against could not be worked out."""

    hint = "the run's log says why"


class Interrupted(Refusal):
    """The run was told to stop."""

    retryable = True


class UnknownRun(NotFound):
    """There is no run {run}."""


class UnknownDataset(NotFound):
    """There is no data set {dataset}."""


class RunHasEnded(Conflict):
    """Run {run} has {status} already."""
