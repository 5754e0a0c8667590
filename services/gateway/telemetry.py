"""The gateway's span and metric names, and how to read them."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

FIRST_REQUEST: Final = "millrace.first_request"
"""Span: the first request that a version served; a child of the change that brought the version."""

REQUESTS: Final = Counter(
    "millrace_gateway_requests",
    "Classification requests by the version that answered and how it ended ('ok', or the refusal's code).",
    ["deployment", "version", "outcome"],
)
REQUEST_SECONDS: Final = Histogram(
    "millrace_gateway_request_seconds",
    "From the whole request being read to its answer, waiting and retries included.",
    ["deployment"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
RETRIES: Final = Counter(
    "millrace_gateway_retries",
    "Attempts that failed on one replica and were made again elsewhere, by the first failure's code.",
    ["code"],
)
MIRRORS: Final = Counter(
    "millrace_gateway_mirrored",
    "Requests mirrored to another version: 'answered', 'failed', or 'dropped' since too many were under way.",
    ["outcome"],
)
STREAMS: Final = Gauge(
    "millrace_gateway_replica_streams",
    "Replicas with an open stream; below the number of replicas: some are unreachable.",
)
FORWARDED: Final = Counter(
    "millrace_gateway_forwarded",
    "Control-plane calls passed on to another service, by its answer.",
    ["service", "code"],
)
ASYNC_REQUESTS: Final = Counter(
    "millrace_gateway_async_requests",
    "Requests of `inference.requested` by how they were answered ('ok', or the refusal's code).",
    ["outcome"],
)
ASYNC_SECONDS: Final = Histogram(
    "millrace_gateway_async_seconds",
    "From the time that the request's event tells to its answer, the wait on the topic included.",
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800),
)
BATCH_ROWS: Final = Counter(
    "millrace_gateway_batch_rows",
    "Rows of batches by what their line says: 'ok' or 'error'. A part that a kill cut off counts again.",
    ["outcome"],
)
BATCHES_ENDED: Final = Counter(
    "millrace_gateway_batches_ended", "Batches by how they ended: succeeded, failed or cancelled.", ["status"]
)
LIMITED: Final = Counter(
    "millrace_gateway_limited",
    "Requests refused since their key was past a limit ('requests', 'concurrent' or 'tokens'), by the key's role.",
    ["limit", "role"],
)
LIMITS_LOCAL: Final = Gauge(
    "millrace_gateway_limits_local",
    "1 while Redis is away and this gateway limits keys by its own memory: several gateways then allow each their own.",
)
LIMIT_SECONDS: Final = Histogram(
    "millrace_gateway_limit_seconds",
    "The round trip to Redis that lets a request in; at most 0.05, after which memory answers.",
    buckets=(0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
)
HTTP_REFUSED: Final = Counter("millrace_gateway_http_refused", "REST requests that were refused, by code.", ["code"])
UPLOADED_BYTES: Final = Counter(
    "millrace_gateway_uploaded_bytes", "Bytes of data sets that were uploaded and kept, repetitions included."
)
