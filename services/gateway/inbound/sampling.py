"""Which requests of the hot path get a span: those whose caller is traced, and a small share of the others."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Final

from opentelemetry.trace import INVALID_SPAN, Span

from services.gateway.ports import Generator
from services.kit.core import telemetry

_TRACEPARENT: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
SAMPLED: Final = 1


@dataclass(frozen=True, slots=True)
class Sampling:
    """`carrier` is the caller's context (empty without one); `unsampled` goes on where there is no span."""

    sampled: bool
    carrier: Mapping[str, str]
    unsampled: str = ""


@contextmanager
def traced(sampling: Sampling, span: Callable[[], AbstractContextManager[Span]]) -> Iterator[Span]:
    """Inside the request's span, or, where it gets none, inside its trace alone, which goes on either way."""
    if sampling.sampled:
        with span() as opened:
            yield opened
        return
    with telemetry.following(sampling.unsampled):
        yield INVALID_SPAN


class Sampler:
    """Head sampling (W3C Trace Context level 1): a request without a span carries an unsampled context on."""

    def __init__(self, ratio: float, generator: Generator) -> None:
        self._ratio = ratio
        self._generator = generator

    def decide(self, traceparent: str | None, tracestate: str | None = None) -> Sampling:
        if traceparent is not None and _TRACEPARENT.fullmatch(traceparent):
            carrier = {"traceparent": traceparent}
            if tracestate:
                carrier["tracestate"] = tracestate
            if int(traceparent[-2:], 16) & SAMPLED:
                return Sampling(sampled=True, carrier=carrier)
            return Sampling(sampled=False, carrier=carrier, unsampled=traceparent)
        if self._ratio and self._generator.random() < self._ratio:
            return Sampling(sampled=True, carrier={})
        drawn = self._generator.getrandbits
        trace_id, span_id = drawn(128) or 1, drawn(64) or 1  # all zeroes is not an id
        return Sampling(sampled=False, carrier={}, unsampled=f"00-{trace_id:032x}-{span_id:016x}-00")
