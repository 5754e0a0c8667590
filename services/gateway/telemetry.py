"""The gateway's span and metric names, and how to read them."""

from typing import Final

from services.kit.core.metrics import Counter, Gauge, Histogram, UpDownCounter

FIRST_REQUEST: Final = "millrace.first_request"
"""Span: the first request that a version served; a child of the change that brought the version."""

REQUESTS: Final = Counter(
    "millrace.gateway.requests",
    "Requests of every task by the version that answered and how it ended ('ok', or the refusal's code).",
    ["tenant", "deployment", "version", "outcome"],
    unit="{request}",
)
REQUEST_SECONDS: Final = Histogram(
    "millrace.gateway.request",
    "From the whole request being read to its answer, waiting and retries included.",
    ["tenant", "deployment"],
    unit="s",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
RETRIES: Final = Counter(
    "millrace.gateway.retries",
    "Attempts that failed on one replica and were made again elsewhere, by the first failure's code.",
    ["tenant", "code"],
    unit="{attempt}",
)
MIRRORS: Final = Counter(
    "millrace.gateway.mirrored",
    "Requests mirrored to another version: 'answered', 'failed', or 'dropped' since too many were under way.",
    ["tenant", "outcome"],
    unit="{request}",
)
STREAMS: Final = UpDownCounter(
    "millrace.gateway.replica_streams",
    "Replicas with an open stream; below the number of replicas: some are unreachable.",
    unit="{stream}",
)
FORWARDED: Final = Counter(
    "millrace.gateway.forwarded",
    "Control-plane calls passed on to another service, by its answer.",
    ["tenant", "service", "code"],
    unit="{call}",
)
ASYNC_REQUESTS: Final = Counter(
    "millrace.gateway.async_requests",
    "Requests of `inference.requested` by how they were answered ('ok', or the refusal's code).",
    ["tenant", "outcome"],
    unit="{request}",
)
ASYNC_SECONDS: Final = Histogram(
    "millrace.gateway.async",
    "From the time that the request's event tells to its answer, the wait on the topic included.",
    ["tenant"],
    unit="s",
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800),
)
BATCH_ROWS: Final = Counter(
    "millrace.gateway.batch_rows",
    "Rows of batches by what their line says: 'ok' or 'error'. A part that a kill cut off counts again.",
    ["tenant", "outcome"],
    unit="{row}",
)
FIRST_TOKEN_SECONDS: Final = Histogram(
    "millrace.gateway.first_token",
    "From a streamed request's arrival to the first part of its answer, waiting at the replica included.",
    ["tenant", "deployment"],
    unit="s",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
BATCHES_ENDED: Final = Counter(
    "millrace.gateway.batches_ended",
    "Batches by how they ended: succeeded, failed or cancelled.",
    ["tenant", "status"],
    unit="{batch}",
)
LIMITED: Final = Counter(
    "millrace.gateway.limited",
    "Requests refused since their key was past a limit ('requests', 'concurrent' or 'tokens'), by the key's role.",
    ["tenant", "limit", "role"],
    unit="{request}",
)
LIMITS_LOCAL: Final = Gauge(
    "millrace.gateway.limits_local",
    "1 while Redis is away and this gateway limits keys by its own memory: several gateways then allow each their own.",
)
LIMIT_SECONDS: Final = Histogram(
    "millrace.gateway.limit",
    "The round trip to Redis that lets a request in; at most 0.05, after which memory answers.",
    unit="s",
    buckets=(0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
)
HTTP_REFUSED: Final = Counter(
    "millrace.gateway.http_refused",
    "REST requests that were refused, by code; without a tenant where no key was accepted.",
    ["tenant", "code"],
    unit="{request}",
)
UPLOADED_BYTES: Final = Counter(
    "millrace.gateway.uploaded",
    "Bytes of data sets that were uploaded and kept, repetitions included.",
    ["tenant"],
    unit="By",
)
