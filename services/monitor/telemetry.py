"""The monitor's span and metric names, and how to read them."""

from typing import Final

from services.kit.core.metrics import Counter, Gauge, Histogram

PUBLISH_DRIFT: Final = "monitor.publish_drift"
"""Span: drift is published; a child of the change that brought the drifted version."""

PUBLISH_VERDICT: Final = "monitor.publish_verdict"
"""Span: a verdict is published; a child of the rollout's step."""

RECORDS: Final = Counter(
    "millrace.monitor.records",
    "Answered requests ingested, by outcome and source; 'repeated' were known already, 'other_model' are left out.",
    ["tenant", "outcome", "source"],
    unit="{record}",
)
SAMPLES_LEFT_OUT: Final = Counter(
    "millrace.monitor.samples_left_out",
    "Sampled inputs that entered no window: 'repeated' inputs, 'unreadable' embeddings.",
    ["tenant", "reason"],
    unit="{sample}",
)
FEEDBACK: Final = Counter(
    "millrace.monitor.feedback",
    "Feedback ingested: 'joined' to an answer, or 'early' (no answer yet).",
    ["tenant", "state"],
    unit="{judgement}",
)
QUALITY: Final = Histogram(
    "millrace.monitor.quality",
    "How good judged requests were, by the metric of their task; what is judged anew counts again.",
    ["tenant", "deployment", "metric"],
    unit="1",
    buckets=(0.0, 0.25, 0.5, 0.75, 1.0),
)
LIKENESS: Final = Histogram(
    "millrace.monitor.likeness",
    "How alike two versions answered one request; far below 1 while both are right: the change is not what it seems.",
    ["tenant", "deployment"],
    unit="1",
    buckets=(0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0),
)
WINDOWS: Final = Counter(
    "millrace.monitor.windows",
    "Windows tested for drift, by verdict.",
    ["tenant", "deployment", "variant", "verdict"],
    unit="{window}",
)
WINDOW_P_VALUE: Final = Gauge(
    "millrace.monitor.window_p_value",
    "Of the variant's latest window; at or below alpha in two in a row is drift.",
    ["tenant", "deployment", "variant"],
    unit="1",
)
WINDOW_SECONDS: Final = Histogram(
    "millrace.monitor.window_test",
    "One permutation test, on a worker thread.",
    ["tenant"],
    unit="s",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
DRIFTS: Final = Counter(
    "millrace.monitor.drifts", "Drifts published, at most one a version.", ["tenant", "deployment"], unit="{drift}"
)
VERDICTS: Final = Counter(
    "millrace.monitor.verdicts",
    "Verdicts on canaries published.",
    ["tenant", "deployment", "verdict"],
    unit="{verdict}",
)
BURN_RATE: Final = Gauge(
    "millrace.monitor.burn_rate",
    "How fast the error budget burns; 1 uses it up exactly by the end of its period.",
    ["tenant", "deployment", "version", "indicator", "window"],
    unit="1",
)
BREACHES: Final = Counter(
    "millrace.monitor.breaches",
    "Breached objectives published.",
    ["tenant", "deployment", "indicator"],
    unit="{breach}",
)
TRAINING_FAILED: Final = Counter(
    "millrace.monitor.training_failed",
    "Runs that ended without a model.",
    ["tenant", "model", "code"],
    unit="{run}",
)
