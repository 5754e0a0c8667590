"""One line of plain words for each event."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from services.cli.consumer import ReceivedEvent

Body = Mapping[str, Any]
JUDGEMENTS: Final = ("label", "rating", "score", "reference")


def in_words(event: ReceivedEvent) -> str:
    """What the event says, in one line. An event that is not understood is told by its key."""
    describe = _WORDS.get(event.topic)
    if describe is None:
        return _dead_letter(event.headers) if event.topic.endswith(".dlq") else event.key
    try:
        return describe(event.body)
    except (KeyError, TypeError, ValueError, IndexError, StopIteration):
        return f"{event.key} (not understood)"


def version_of(event: ReceivedEvent) -> int | None:
    """The version that the event speaks of, if it does."""
    body = event.body
    if isinstance(body.get("version"), int):
        return int(body["version"])
    if event.topic == "deployment.changed":
        rollout = body.get("rollout")
        versions = [target["version"] for target in body.get("targets", [])]
        return int(rollout["version"]) if rollout else max(versions, default=None)
    if event.topic == "registry.history":
        number = body.get("payload", {}).get("version")
        return int(number) if isinstance(number, int) else None
    return None


def _dead_letter(headers: Mapping[str, str]) -> str:
    if by := headers.get("dlq-redelivered"):
        return f"dead letter {headers.get('dlq-letter', '')} was redelivered by {by}"
    return f"dead letter: {headers.get('dlq-reason', '')}"


def _dataset_ready(body: Body) -> str:
    return f"data set {body['dataset']} is ready for model {body['model']}"


def _model_trained(body: Body) -> str:
    scores = next(part for part in body["metrics"]["slices"] if part["name"] == "all")
    bounds = scores["macro_f1_ci95"]
    return (
        f"run {_short(body['run'])} ended: macro F1 {scores['macro_f1']:.3f} "
        f"({bounds['low']:.3f}..{bounds['high']:.3f}), TF-IDF {body['metrics']['tfidf_macro_f1']:.3f}"
    )


def _training_failed(body: Body) -> str:
    return f"run {_short(body['run'])} failed in {body['stage']}: {body['reason']}"


def _deployment_changed(body: Body) -> str:
    served = ", ".join(f"v{target['version']} {target['weight']}%" for target in body["targets"])
    return f"generation {body['generation']}: {served or 'nothing'}; {body['reason']}"


def _replica_reported(body: Body) -> str:
    states = ", ".join(f"v{one['version']} {one['state']}" for one in body["versions"])
    return f"replica {body['replica']}: {states or 'nothing loaded'}"


def _inference_logged(body: Body) -> str:
    versions = sorted({record["version"] for record in body["records"]})
    return f"{len(body['records'])} requests answered by {', '.join(f'v{version}' for version in versions)}"


def _feedback_received(body: Body) -> str:
    judgement = next((kind, body[kind]) for kind in JUDGEMENTS if body.get(kind) is not None)
    words = f"was {judgement[1]}" if judgement[0] == "label" else f"has the {judgement[0]} {judgement[1]}"
    return f"request {_short(body['request'])} {words}"


def _inference_requested(body: Body) -> str:
    texts = (body.get("input") or body).get("texts", ())
    return f"{len(texts)} texts for {body['deployment']}"


def _inference_completed(body: Body) -> str:
    if failure := body.get("failure"):
        return f"request {_short(body['request'])} was refused: {failure['message']}"
    return f"request {_short(body['request'])} was answered by v{body['version']}"


def _drift_detected(body: Body) -> str:
    variant = f" ({body['variant']})" if body.get("variant") else ""
    return (
        f"drift away from v{body['version']}{variant}: {body['test']} p={body['p_value']:.4f} "
        f"in {body['consecutive']} windows in a row, {body['requests_since_quiet']} requests after the last quiet one"
    )


def _rollout_judged(body: Body) -> str:
    return f"v{body['version']}: {body['verdict']} after {body['requests']} requests; {body['reason']}"


def _slo_breached(body: Body) -> str:
    return f"v{body['version']}: {body['indicator']} burn the budget {body['burn_rate']:.1f} times too fast"


def _registry_fact(body: Body) -> str:
    reason = f": {body['reason']}" if body["reason"] else ""
    return f"#{body['sequence']} {body['kind']} by {body['actor']}{reason}"


def _short(identifier: str) -> str:
    return identifier if len(identifier) <= 16 else f"…{identifier[-8:]}"


_WORDS: Final[Mapping[str, Callable[[Body], str]]] = {
    "dataset.ready": _dataset_ready,
    "model.trained": _model_trained,
    "training.failed": _training_failed,
    "deployment.changed": _deployment_changed,
    "replica.reported": _replica_reported,
    "inference.logged": _inference_logged,
    "feedback.received": _feedback_received,
    "inference.requested": _inference_requested,
    "inference.completed": _inference_completed,
    "drift.detected": _drift_detected,
    "rollout.judged": _rollout_judged,
    "slo.breached": _slo_breached,
    "registry.history": _registry_fact,
}
