"""What the demo found out, as `demo/summary.json`. Every number was measured on the running system."""

from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Interval(_Part):
    """A 95% confidence interval."""

    low: float
    high: float


class Step(_Part):
    name: str
    started: datetime
    seconds: float


class TimelineEvent(_Part):
    """One event of the timeline."""

    time: datetime
    topic: str
    source: str
    version: int | None
    words: str


class Check(_Part):
    name: str
    passed: bool
    detail: str


class Verdict(_Part):
    """What the gate said of a version."""

    passed: bool
    checks: list[Check]


class VersionSummary(_Part):
    number: int
    status: str
    run: str
    data_set: str
    parent: int | None
    precision: str
    macro_f1: float
    ci95: Interval
    accuracy: float
    tfidf_macro_f1: float
    test_rows: int
    gate: Verdict
    training_seconds: float | None = Field(description="from the data set's or the drift's event to model.trained")


class Int8(_Part):
    """Of version 1, as its run measured it."""

    macro_f1: float
    fp32_macro_f1: float
    agreement: float = Field(description="share of test rows answered as fp32 answers them")
    speedup: float
    size_ratio: float = Field(description="bytes of int8 over bytes of fp32")
    passed: bool


class Client(_Part):
    """What a client got from version 1 through one door."""

    client: str
    requests: int
    right: int


class Traffic(_Part):
    requests_sent: int
    requests_failed: int
    by_version: dict[int, int]
    feedback_sent: int
    feedback_failed: int
    failures: list[str]


class Drift(_Part):
    test: str
    p_value: float
    statistic: float
    consecutive_windows: int
    shifted_share: float = Field(description="share of the requests that came from the new mix")
    detected_after_requests: int
    detection_seconds: float


class Recovery(_Part):
    """Accuracy on held-out texts of the new mix, whose labels nobody sent, before and after."""

    seconds: float = Field(description="from drift.detected to the new version having all the traffic")
    rows: int
    accuracy_before: float
    ci95_before: Interval
    accuracy_after: float
    ci95: Interval = Field(description="of accuracy_after")
    mcnemar_p: float


class Rollback(_Part):
    version: int
    gate_refused: bool
    verdict: str
    reason: str
    evidence: list[dict[str, object]]
    requests: int = Field(description="the version's requests in the step that the verdict is about")
    seconds: float = Field(description="from its first canary traffic to having none")
    last_request_on_bad_version_after_seconds: float = Field(description="after the verdict; 0 when none came later")
    requests_answered_by_it: int
    requests_failed: int


class Summary(_Part):
    broker: str
    model: str
    started: datetime
    seconds: float
    steps: list[Step]
    trace_id: str
    services_in_trace: list[str]
    spans_in_trace: int
    versions: list[VersionSummary]
    int8: Int8
    clients: list[Client]
    traffic: Traffic
    quiet_windows: int
    drift: Drift
    recovery: Recovery
    rollback: Rollback
    timeline: list[TimelineEvent]
    data_folder: str
    logs: str

    def write(self, path: Path) -> None:
        """Whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".partial")
        draft.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
        draft.replace(path)
