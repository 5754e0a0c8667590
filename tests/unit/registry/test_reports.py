"""A replica serves every tenant: what it tells of one is read apart from the others."""

from services.contracts.events import ReplicaReported, ReplicaVersion
from services.registry.domain.reports import of_tenant

REPORT = ReplicaReported(
    replica="r",
    address="h:1",
    sequence=1,
    generations={"topics": 7, "acme/topics": 2, "acme/news": 3},
    versions=[
        ReplicaVersion(deployment="topics", model="topics", version=7, state="ready"),
        ReplicaVersion(tenant="acme", deployment="topics", model="topics", version=1, state="loading"),
    ],
    capacity=8,
)


def test_each_tenant_sees_its_own_versions_and_generations_by_plain_name() -> None:
    ours, theirs, nobodys = (of_tenant(REPORT, tenant) for tenant in ("default", "acme", "elsewhere"))
    assert ([part.version for part in ours.versions], ours.generations) == ([7], {"topics": 7})
    assert ([part.version for part in theirs.versions], theirs.generations) == ([1], {"topics": 2, "news": 3})
    assert (nobodys.versions, nobodys.generations) == ([], {})
