"""What every query begins with."""

from services.monitor.domain.deployments import DeploymentKey, Watch
from services.monitor.errors import UnknownDeployment
from services.monitor.ports import Tx


async def require_watch(key: DeploymentKey, tx: Tx) -> Watch:
    """Raises UnknownDeployment."""
    watch = await tx.watch(key)
    if watch is None:
        raise UnknownDeployment(deployment=key.deployment)
    return watch
