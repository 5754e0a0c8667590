"""Who consumes each topic: the one thing that the event classes do not say.

`tests/contracts` compares it with what the rooms subscribe to.
"""

from typing import Final

CONSUMERS: Final[dict[str, tuple[str, ...]]] = {
    "dataset.ready": ("trainer",),
    "model.trained": ("registry",),
    "training.failed": ("registry", "monitor"),
    "deployment.changed": ("inference", "gateway", "monitor"),
    "replica.reported": ("registry", "gateway", "inference"),
    "inference.logged": ("monitor", "trainer"),
    "feedback.received": ("monitor", "trainer"),
    "inference.requested": ("gateway",),
    "inference.completed": (),
    "drift.detected": ("trainer", "registry"),
    "rollout.judged": ("registry",),
    "slo.breached": ("registry",),
    "registry.history": (),
}
