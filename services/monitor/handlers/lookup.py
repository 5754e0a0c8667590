"""What every query begins with."""

from services.monitor.domain.deployments import Place, Watch
from services.monitor.errors import UnknownDeployment
from services.monitor.ports import Tx


async def require_watch(place: Place, tx: Tx) -> Watch:
    """Raises UnknownDeployment."""
    watch = await tx.watch(place)
    if watch is None:
        raise UnknownDeployment(deployment=place.deployment)
    return watch
