"""The monitor's span and metric names, and how to read them."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

TELL_DRIFT: Final = "monitor.tell_drift"
"""Span: drift is told; a child of the change that brought the drifted version."""

TELL_VERDICT: Final = "monitor.tell_verdict"
"""Span: a verdict is told; a child of the rollout's step."""

RECORDS: Final = Counter(
    "millrace_monitor_records",
    "Answered requests taken, by outcome and source; 'repeated' were known already.",
    ["outcome", "source"],
)
SAMPLES_LEFT_OUT: Final = Counter(
    "millrace_monitor_samples_left_out",
    "Sampled inputs that entered no window: 'repeated' inputs, 'unreadable' embeddings.",
    ["reason"],
)
FEEDBACK: Final = Counter(
    "millrace_monitor_feedback", "Feedback taken: 'joined' to an answer, or 'early' (no answer yet).", ["state"]
)
QUALITY: Final = Histogram(
    "millrace_monitor_quality",
    "How good judged requests were, by the metric of their task; what is judged anew counts again.",
    ["deployment", "metric"],
    buckets=(0.0, 0.25, 0.5, 0.75, 1.0),
)
LIKENESS: Final = Histogram(
    "millrace_monitor_likeness",
    "How alike two versions answered one request; far below 1 while both are right: the change is not what it seems.",
    ["deployment"],
    buckets=(0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0),
)
WINDOWS: Final = Counter("millrace_monitor_windows", "Windows tested for drift, by verdict.", ["deployment", "verdict"])
WINDOW_P_VALUE: Final = Gauge(
    "millrace_monitor_window_p_value",
    "Of the latest window; at or below alpha in two in a row is drift.",
    ["deployment"],
)
WINDOW_SECONDS: Final = Histogram(
    "millrace_monitor_window_test_seconds",
    "One permutation test, on a worker thread.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
DRIFTS: Final = Counter("millrace_monitor_drifts", "Drifts told, at most one a version.", ["deployment"])
VERDICTS: Final = Counter("millrace_monitor_verdicts", "Verdicts on canaries told.", ["deployment", "verdict"])
BURN_RATE: Final = Gauge(
    "millrace_monitor_burn_rate",
    "How fast the error budget burns; 1 uses it up exactly by the end of its period.",
    ["deployment", "version", "indicator", "window"],
)
BREACHES: Final = Counter("millrace_monitor_breaches", "Breached objectives told.", ["deployment", "indicator"])
TRAINING_FAILED: Final = Counter(
    "millrace_monitor_training_failed", "Runs that ended without a model.", ["model", "code"]
)
