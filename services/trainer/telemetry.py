"""The trainer's names for spans and metrics."""

from typing import Final

from services.kit.core.metrics import Counter, Gauge, Histogram

RUN_ID: Final = "millrace.run.id"
MODEL: Final = "millrace.model"

RUNS_ENDED: Final = Counter("millrace.trainer.runs", "Runs that ended, by how.", ["tenant", "status"], unit="{run}")
RUN_SECONDS: Final = Histogram(
    "millrace.trainer.run",
    "From asking for a run to its end, waiting included.",
    ["tenant"],
    unit="s",
    buckets=(1, 5, 15, 30, 60, 120, 300, 900, 3600, 14400),
)
RUNS_PUT_BACK: Final = Counter(
    "millrace.trainer.run_retries", "Attempts that failed and are tried again.", ["tenant", "code"], unit="{attempt}"
)
EXAMPLES: Final = Gauge(
    "millrace.trainer.labelled_examples",
    "Labelled texts at hand when a drift was last looked at.",
    ["tenant", "model"],
    unit="{text}",
)
