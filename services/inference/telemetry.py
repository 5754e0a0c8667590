"""Inference's metrics, and how to read them. Spans: `load VERSION`, with one span a step; `classify DEPLOYMENT` for a
request on a stream whose caller samples its trace."""

from typing import Final

from services.kit.core.metrics import Counter, Histogram, ObservableGauge

_FAST: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

REQUESTS: Final = Counter(
    "millrace.inference.requests",
    "Requests that reached a version; an outcome other than ok is the refusal's code.",
    ["tenant", "deployment", "version", "outcome"],
    unit="{request}",
)
REQUEST_SECONDS: Final = Histogram(
    "millrace.inference.request",
    "From a request's arrival to its answer.",
    ["tenant", "deployment", "version"],
    unit="s",
    buckets=_FAST,
)
BATCH_ROWS: Final = Histogram(
    "millrace.inference.batch_rows",
    "Texts per engine call; always 1 means that batching buys nothing.",
    ["tenant"],
    unit="{row}",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128),
)
BATCH_PADDING: Final = Histogram(
    "millrace.inference.batch_padding_ratio",
    "Share of an engine call spent on padding; near the limit means that lengths are too mixed.",
    ["tenant"],
    unit="1",
    buckets=(0.0, 0.02, 0.05, 0.1, 0.15, 0.25, 0.5),
)
TOKENS: Final = Counter("millrace.inference.tokens", "Tokens read, padding not counted.", ["tenant"], unit="{token}")
ENGINE_SECONDS: Final = Histogram(
    "millrace.inference.engine", "One engine call; the floor of every latency.", ["tenant"], unit="s", buckets=_FAST
)
QUEUE_SECONDS: Final = Histogram(
    "millrace.inference.queue",
    "How long the oldest text of a batch waited, tokenising included; above the engine's time: add a replica.",
    ["tenant"],
    unit="s",
    buckets=_FAST,
)
PROMPT_TOKENS: Final = Counter(
    "millrace.inference.generation.prompt_tokens", "Prompt tokens computed.", ["tenant"], unit="{token}"
)
ANSWER_TOKENS: Final = Counter(
    "millrace.inference.generation.answer_tokens", "Answer tokens generated.", ["tenant"], unit="{token}"
)
STEP_ROWS: Final = Histogram(
    "millrace.inference.generation.step_rows",
    "Answers that one step carries on; always 1 means that nothing is batched.",
    ["tenant"],
    unit="{row}",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128),
)
STEP_SECONDS: Final = Histogram(
    "millrace.inference.generation.step",
    "One step of all answers under way: the time between two tokens of each, while no prompt is computed.",
    ["tenant"],
    unit="s",
    buckets=_FAST,
)
PIECE_SECONDS: Final = Histogram(
    "millrace.inference.generation.prompt_piece",
    "One piece of one prompt; meanwhile the answers under way wait.",
    ["tenant"],
    unit="s",
    buckets=_FAST,
)
QUEUED: Final = ObservableGauge(
    "millrace.inference.queued_texts", "Texts that wait or run; at the capacity more are refused.", unit="{text}"
)
LOG_DROPPED: Final = Counter(
    "millrace.inference.log_dropped",
    "Answers that were never logged, because the broker was away for too long.",
    ["tenant"],
    unit="{answer}",
)
BRING_UP_SECONDS: Final = Histogram(
    "millrace.inference.bring_up",
    "From wanted to ready, waiting for its turn included.",
    ["tenant"],
    unit="s",
    buckets=(0.5, 1, 2, 5, 10, 30, 60, 300),
)
BRING_UPS: Final = Counter(
    "millrace.inference.bring_ups",
    "Versions brought up, by outcome: ready, or why not.",
    ["tenant", "outcome"],
    unit="{version}",
)


def observe_batch(
    tenant: str, *, rows: int, tokens: int, padding: float, engine_seconds: float, longest_wait_seconds: float
) -> None:
    """Counts one engine call; `padding` is its share of the tokens."""
    BATCH_ROWS.record(rows, tenant=tenant)
    BATCH_PADDING.record(padding, tenant=tenant)
    TOKENS.add(tokens, tenant=tenant)
    ENGINE_SECONDS.record(engine_seconds, tenant=tenant)
    QUEUE_SECONDS.record(longest_wait_seconds, tenant=tenant)


def observe_step(tenant: str, *, rows: int, seconds: float) -> None:
    """Counts one step of a decoder, which gave a token to each of its rows."""
    ANSWER_TOKENS.add(rows, tenant=tenant)
    STEP_ROWS.record(rows, tenant=tenant)
    STEP_SECONDS.record(seconds, tenant=tenant)


def observe_prompt(tenant: str, *, tokens: int, seconds: float) -> None:
    """Counts one piece of a prompt that was computed."""
    PROMPT_TOKENS.add(tokens, tenant=tenant)
    PIECE_SECONDS.record(seconds, tenant=tenant)


def observe_request(tenant: str, deployment: str, version: int, outcome: str, seconds: float) -> None:
    REQUESTS.add(1, tenant=tenant, deployment=deployment, version=version, outcome=outcome)
    if outcome == "ok":
        REQUEST_SECONDS.record(seconds, tenant=tenant, deployment=deployment, version=version)
