"""Training runs, of which only the failed ones concern the monitor: they are counted for an alert."""

from services.contracts.events import TrainingFailed
from services.kit.messaging.envelope import Envelope
from services.monitor import telemetry as names
from services.monitor.ports import Ports


async def on_training_failed(envelope: Envelope[TrainingFailed], ports: Ports) -> None:
    """Counts the run once, however often the event is delivered."""
    async with ports.store.transaction() as tx:
        if not await tx.mark_processed(envelope):
            return
    failed = envelope.event
    names.TRAINING_FAILED.add(1, tenant=envelope.tenant, model=failed.model, code=failed.code)
