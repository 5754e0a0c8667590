"""The trainer's names for spans and metrics."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

RUN_ID: Final = "millrace.run.id"
MODEL: Final = "millrace.model"

RUNS_ENDED = Counter("millrace_trainer_runs", "Runs that ended, by how.", ["status"])
RUN_SECONDS = Histogram(
    "millrace_trainer_run_seconds",
    "From asking for a run to its end, waiting included.",
    buckets=(1, 5, 15, 30, 60, 120, 300, 900, 3600, 14400),
)
RUNS_PUT_BACK = Counter("millrace_trainer_run_retries", "Attempts that failed and are tried again.", ["code"])
EXAMPLES = Gauge(
    "millrace_trainer_labelled_examples", "Labelled texts at hand when a drift was last looked at.", ["model"]
)
