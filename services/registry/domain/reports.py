"""What a replica tells of one tenant: a replica serves them all, and each may use the names of the others."""

from services.contracts.events import ReplicaReported
from services.contracts.names import qualified_name


def of_tenant(report: ReplicaReported, tenant: str) -> ReplicaReported:
    """The report as if that tenant were the only one: its versions, and its generations by plain name."""
    names = {node_id: node_id.rpartition("/")[2] for node_id in report.generations}
    mine = {
        name: report.generations[node_id] for node_id, name in names.items() if node_id == qualified_name(tenant, name)
    }
    versions = [part for part in report.versions if part.tenant == tenant]
    return report.model_copy(update={"versions": versions, "generations": mine})
