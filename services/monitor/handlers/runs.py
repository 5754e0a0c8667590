"""Training runs that failed."""

from services.contracts.events import TrainingFailed
from services.kit.messaging.envelope import Envelope
from services.monitor import telemetry as names
from services.monitor.ports import Ports


async def note_failed_training(envelope: Envelope[TrainingFailed], ports: Ports) -> None:
    async with ports.store.transaction() as tx:
        if not await tx.mark_processed(envelope):
            return
    failed = envelope.event
    names.TRAINING_FAILED.add(1, tenant=envelope.tenant, model=failed.model, code=failed.code)
