"""What is said of training: how to train, and how good the outcome is. Values inside events, and of several rooms."""

from pydantic import BaseModel, ConfigDict, Field

from services.contracts.artifact import Precision
from services.contracts.names import VersionNumber


class Fact(BaseModel):
    """A value inside an event: frozen, unknown fields ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Columns(Fact):
    """Which column holds what."""

    text: str = "text"
    label: str = "label"
    split: str | None = Field(default=None, description="train, test or reference; without it the trainer splits")
    group: str | None = Field(default=None, description="rows of one group fall into one split")


class Recipe(Fact):
    """How to train. The defaults are the measured ones for short texts on two CPU cores."""

    epochs: int = Field(default=2, ge=1, le=100)
    batch_size: int = Field(default=16, ge=1, le=1024)
    learning_rate: float = Field(default=3e-4, gt=0, le=1)
    head_learning_rate: float = Field(default=1e-3, gt=0, le=1)
    max_length: int = Field(default=64, ge=8, le=512, description="tokens")
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    test_rows: int = Field(default=500, ge=20, le=1_000_000)
    reference_rows: int = Field(default=500, ge=50, le=100_000)
    train_rows: int | None = Field(default=None, ge=20, description="at most this many; all when unset")


class Interval(Fact):
    """A 95% confidence interval."""

    low: float
    high: float


class SliceScore(Fact):
    """Scores on one part of the test split."""

    name: str = Field(description="'all', or the source of the rows: 'base', 'feedback'")
    rows: int = Field(ge=0)
    accuracy: float
    macro_f1: float
    macro_f1_ci95: Interval


class Metrics(Fact):
    """Of the variant that is to be served."""

    slices: list[SliceScore] = Field(min_length=1)
    tfidf_macro_f1: float = Field(description="TF-IDF with logistic regression on the same split")
    train_rows: int = Field(ge=0)
    test_rows: int = Field(ge=0)

    def overall(self) -> SliceScore:
        return next(part for part in self.slices if part.name == "all")


class PairedCounts(Fact):
    """The same test rows answered by the candidate and by the champion of that moment."""

    name: str
    both: int = Field(ge=0, description="both right")
    candidate_only: int = Field(ge=0)
    champion_only: int = Field(ge=0)
    neither: int = Field(ge=0)


class Comparison(Fact):
    """Against the champion that served when the run began."""

    champion: VersionNumber
    slices: list[PairedCounts] = Field(min_length=1)


class VariantReport(Fact):
    """One precision of the model and what was measured of it."""

    precision: Precision
    size_bytes: int = Field(ge=0)
    macro_f1: float
    agreement: float = Field(description="share of test rows answered as fp32 answers them")
    max_difference: float = Field(
        description="largest absolute difference of a logit to torch, padded batches included"
    )
    speedup: float = Field(
        description="fp32 time over this variant's time, one text at a time, one thread; "
        "0 where the trainer has no device that it is meant for"
    )
    passed: bool
    reason: str = ""
