"""The graph around a version: all of it follows from the history."""

from datetime import datetime

from services.contracts.events import Verdict
from services.registry.domain import Decided, ModelState, SpecChanges, commands, fold
from services.registry.domain.facts import ModelFact
from services.registry.domain.lineage import Lineage, Node, lineage
from tests.unit.registry.scenario import MODEL, OTHER, Scenario, canary_of_two, serving_one


def of(scenario: Scenario, version: int, rows: list[tuple[Decided, datetime]] | None = None) -> Lineage:
    return lineage(MODEL, version, scenario.rows if rows is None else rows)


def kinds(matches: Lineage) -> dict[str, list[Node]]:
    sorted_by: dict[str, list[Node]] = {}
    for node in matches.nodes:
        sorted_by.setdefault(node.kind, []).append(node)
    return sorted_by


def relations(matches: Lineage) -> set[tuple[str, str, str]]:
    """By kind and label instead of id."""
    named = {node.id: f"{node.kind} {node.label}" for node in matches.nodes}
    return {(named[edge.source], edge.relation, named[edge.target]) for edge in matches.edges}


def test_a_version_is_followed_back_to_its_data_its_run_and_its_base_model() -> None:
    matches = of(serving_one(), 1)
    assert relations(matches) >= {
        ("dataset docstrings", "read_by", "run run-1"),
        ("base_model all-MiniLM-L6-v2", "began_from", "run run-1"),
        ("run run-1", "produced", "version version 1"),
    }
    assert kinds(matches)["dataset"][0].facts["data_hash"] == "d" * 64
    assert kinds(matches)["run"][0].facts["code_version"] == "0.1.0"
    assert "epochs" in kinds(matches)["run"][0].facts["recipe"]


def test_the_gate_stands_there_with_every_check_as_its_evidence() -> None:
    (gate,) = kinds(of(serving_one(), 1))["gate"]
    assert gate.facts == {"passed": "yes", "against": ""}
    assert {check["name"] for check in gate.evidence} >= {"test_rows"}


def test_rollouts_say_how_they_ended_with_their_evidence_and_when_the_version_served() -> None:
    scenario = canary_of_two()
    scenario.judges(Verdict.ROLL_BACK)
    (rollout,) = kinds(of(scenario, 2))["rollout"]
    assert (rollout.facts["outcome"], rollout.facts["ended_by"]) == ("rolled_back", "monitor")
    assert rollout.facts["started_because"] == "it passed its gate"
    assert rollout.evidence[0]["decision"] == "worse"
    assert "deployment" not in kinds(of(scenario, 2)), "it never had all the traffic"
    (served,) = kinds(of(scenario, 1))["deployment"]
    assert served.facts["until"] == ""


def test_periods_of_serving_end_with_a_promotion_a_rollback_and_a_stop() -> None:
    scenario = canary_of_two()
    scenario.promotes()
    scenario.wait(5)
    scenario.rolls_back()
    scenario.wait(5)
    scenario.stops()
    one, two = kinds(of(scenario, 1))["deployment"], kinds(of(scenario, 2))["deployment"]
    assert len(one) == 2
    assert len(two) == 1
    assert one[0].facts["until"] == two[0].facts["from"]
    assert two[0].facts["until"] == one[1].facts["from"]
    assert one[1].facts["until"] == scenario.now.isoformat()


def test_aliases_of_people_say_when_they_were_held() -> None:
    scenario = canary_of_two()
    scenario.do(commands.SetAlias("stable", 1, "ada", "because"))
    scenario.wait(5)
    scenario.do(commands.SetAlias("stable", 2, "ada", "because"))
    (first,), (second,) = kinds(of(scenario, 1))["alias"], kinds(of(scenario, 2))["alias"]
    assert (first.label, first.facts["until"]) == ("stable", second.facts["from"])
    assert second.facts["until"] == ""


def test_serving_ends_when_a_deployment_moves_to_another_model() -> None:
    scenario = serving_one()
    scenario.trains("other-1", model=OTHER, deploy=False)
    scenario.changes(SpecChanges(model=OTHER))
    scenario.starts(1)
    scenario.wait(5)
    scenario.reports(1, model=OTHER)
    (served,) = kinds(of(scenario, 1))["deployment"]
    assert served.facts["until"] == scenario.now.isoformat()


def test_a_drift_leads_from_the_parent_over_the_run_that_it_started_to_the_child() -> None:
    scenario = serving_one()
    scenario.drifts(1)
    scenario.trains("run-2", against=1, parent=1)
    expected = {
        ("version version 1", "drifted", "drift away from version 1"),
        ("drift away from version 1", "asked_for", "run run-2"),
        ("run run-2", "produced", "version version 2"),
        ("version version 1", "parent_of", "version version 2"),
    }
    assert relations(of(scenario, 2)) >= expected
    assert relations(of(scenario, 1)) >= expected
    assert of(scenario, 2).nodes[0].label == "version 2"


def test_grandparents_and_grandchildren_belong_to_it() -> None:
    scenario = serving_one()
    scenario.trains("run-2", against=1, parent=1, deploy=False)
    scenario.trains("run-3", against=1, parent=2, deploy=False)
    for version in (1, 2, 3):
        labels = {node.label for node in kinds(of(scenario, version))["version"]}
        assert labels == {"version 1", "version 2", "version 3"}


def test_read_up_to_a_time_it_is_the_graph_of_that_time() -> None:
    scenario = canary_of_two()
    for length in range(1, len(scenario.rows) + 1):
        rows = scenario.rows[:length]
        for version in fold(
            ModelState(model=MODEL), [row for row in rows if isinstance(row[0].fact, ModelFact)]
        ).versions:
            matches = of(scenario, version.number, rows)
            ids = {node.id for node in matches.nodes}
            assert len(ids) == len(matches.nodes)
            assert {node_id for edge in matches.edges for node_id in (edge.source, edge.target)} == ids
            assert len(set(matches.edges)) == len(matches.edges)
