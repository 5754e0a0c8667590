"""What the trainer refuses. `row` among the facts is the first offending row, counted from 1.

Refusal
├── UnusableData       the data set cannot be trained on
│   ├── MissingFile, NoRegularFile, OutsideRoots, UnsupportedAddress, TooLargeData, TooManyRows
│   ├── NotUtf8, NulByte, RaggedRow, TruncatedFile, BadRow, MissingColumn, TextTooLong, UnknownSplit
│   └── EmptyData, OneClass, TooManyLabels, TooFewRows
├── QualityRefused     the model is not fit to leave
│   └── ParityFailed
├── UnsupportedBaseModel
├── OutOfMemory, BaselineBroke
└── Interrupted        told to stop; not a failure
"""

from services.contracts.errors import Conflict, Invalid, Kind, NotFound, Refusal, Unsupported


class UnusableData(Invalid):
    """The data set cannot be trained on: {problem}."""

    field = "uri"

    @property
    def row(self) -> int | None:
        row = self.facts.get("row")
        return row if isinstance(row, int) else None


class MissingFile(UnusableData):
    """There is no file at the data set's address."""

    hint = "publish dataset.ready after the file is complete, with an address that the trainer can read"


class NoRegularFile(UnusableData):
    """The data set's address is not a regular file."""


class OutsideRoots(UnusableData):
    """The data set's address is outside the folders that the trainer may read."""

    hint = "put the file under an allowed root (MILLRACE_TRAINER_DATA_ROOTS)"


class UnsupportedAddress(UnusableData):
    """A data set's address cannot be read: {scheme} is not supported."""

    hint = "give a file:// address"


class TooLargeData(UnusableData):
    """The data set is larger than the limit of {limit_bytes} bytes."""


class TooManyRows(UnusableData):
    """The data set has more rows than the limit of {limit}."""


class NotUtf8(UnusableData):
    """Row {row} is not UTF-8 text."""

    hint = "save the file as UTF-8, in one encoding throughout"


class NulByte(UnusableData):
    """Row {row} holds a NUL byte."""


class RaggedRow(UnusableData):
    """Row {row} has {found} fields where the header has {expected}."""


class TruncatedFile(UnusableData):
    """The file ends inside row {row}."""


class BadRow(UnusableData):
    """Row {row} cannot be read: {problem}."""


class MissingColumn(UnusableData):
    """The column {column} is missing."""

    field = "columns"
    hint = "the columns found are: {found}"


class TextTooLong(UnusableData):
    """The text of row {row} is longer than the limit of {limit} characters."""


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
