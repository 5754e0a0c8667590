"""What a replica tells of one tenant: a replica serves them all, and each may use the names of the others."""

from services.contracts.events import ReplicaReported
from services.contracts.names import place_of


def of_tenant(report: ReplicaReported, tenant: str) -> ReplicaReported:
    """The report as if that tenant were the only one: its versions, and its generations by plain name."""
    names = {place: place.rpartition("/")[2] for place in report.generations}
    mine = {name: report.generations[place] for place, name in names.items() if place == place_of(tenant, name)}
    versions = [part for part in report.versions if part.tenant == tenant]
    return report.model_copy(update={"versions": versions, "generations": mine})
