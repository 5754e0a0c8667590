"""Inference's metrics, and how to read them. Spans: `load VERSION`, with one span a step; `classify DEPLOYMENT` for a
request on a stream whose caller samples its trace."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

_FAST: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

REQUESTS: Final = Counter(
    "millrace_inference_requests",
    "Requests that reached a version; an outcome other than ok is the refusal's code.",
    ["deployment", "version", "outcome"],
)
REQUEST_SECONDS: Final = Histogram(
    "millrace_inference_request_seconds",
    "From a request's arrival to its answer.",
    ["deployment", "version"],
    buckets=_FAST,
)
BATCH_ROWS: Final = Histogram(
    "millrace_inference_batch_rows",
    "Texts per engine call; always 1 means that batching buys nothing.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128),
)
BATCH_PADDING: Final = Histogram(
    "millrace_inference_batch_padding_ratio",
    "Share of an engine call spent on padding; near the limit means that lengths are too mixed.",
    buckets=(0.0, 0.02, 0.05, 0.1, 0.15, 0.25, 0.5),
)
TOKENS: Final = Counter("millrace_inference_tokens", "Tokens read, padding not counted.")
ENGINE_SECONDS: Final = Histogram(
    "millrace_inference_engine_seconds", "One engine call; the floor of every latency.", buckets=_FAST
)
QUEUE_SECONDS: Final = Histogram(
    "millrace_inference_queue_seconds",
    "How long the oldest text of a batch waited, tokenising included; above the engine's time: add a replica.",
    buckets=_FAST,
)
QUEUED: Final = Gauge("millrace_inference_queued_texts", "Texts that wait or run; at the capacity more are refused.")
LOG_DROPPED: Final = Counter(
    "millrace_inference_log_dropped", "Answers that were never logged, because the broker was away for too long."
)
BRING_UP_SECONDS: Final = Histogram(
    "millrace_inference_bring_up_seconds",
    "From wanted to ready, waiting for its turn included.",
    buckets=(0.5, 1, 2, 5, 10, 30, 60, 300),
)
BRING_UPS: Final = Counter(
    "millrace_inference_bring_ups", "Versions brought up, by outcome: ready, or why not.", ["outcome"]
)


def observe_batch(
    *, rows: int, tokens: int, padding: float, engine_seconds: float, longest_wait_seconds: float
) -> None:
    """Counts one engine call; `padding` is its share of the tokens."""
    BATCH_ROWS.observe(rows)
    BATCH_PADDING.observe(padding)
    TOKENS.inc(tokens)
    ENGINE_SECONDS.observe(engine_seconds)
    QUEUE_SECONDS.observe(longest_wait_seconds)


def observe_request(deployment: str, version: int, outcome: str, seconds: float) -> None:
    REQUESTS.labels(deployment, str(version), outcome).inc()
    if outcome == "ok":
        REQUEST_SECONDS.labels(deployment, str(version)).observe(seconds)
