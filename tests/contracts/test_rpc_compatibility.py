"""A client built yesterday speaks to the services of today: nothing released is ever renumbered, retyped or removed."""

import copy
import json

import pytest

from tests.contracts.examples import GOLDEN
from tests.contracts.rpc_surface import Surface, breaches, surface

RELEASED: Surface = json.loads((GOLDEN / "rpc.json").read_text())


def test_nothing_released_has_changed() -> None:
    assert breaches(RELEASED, surface()) == []


def test_everything_there_is_is_frozen() -> None:
    """Otherwise a new field could change unseen: run scripts/freeze_contracts.py in the change that adds it."""
    assert surface() == RELEASED


def test_adding_is_allowed() -> None:
    current = copy.deepcopy(RELEASED)
    current["millrace.v1.Page"]["9"] = "string order"
    current["millrace.v1.Extra"] = {"1": "string name"}
    assert breaches(RELEASED, current) == []


@pytest.mark.parametrize(
    ("name", "key", "now"),
    [
        ("millrace.v1.ClassifyRequest", "2", None),
        ("millrace.v1.ClassifyRequest", "2", "string texts"),
        ("millrace.v1.ClassifyRequest", "2", "repeated string inputs"),
        ("millrace.v1.RegistryService", "RollBack", None),
        ("millrace.v1.InferenceService", "Stream", "millrace.v1.StreamRequest -> stream millrace.v1.StreamResponse"),
    ],
    ids=["a field removed", "a field retyped", "a field renamed", "a method removed", "a stream made single"],
)
def test_a_breaking_change_is_caught(name: str, key: str, now: str | None) -> None:
    current = copy.deepcopy(RELEASED)
    if now is None:
        del current[name][key]
    else:
        current[name][key] = now
    match = breaches(RELEASED, current)
    assert len(match) == 1
    assert match[0].startswith(name)


def test_renumbering_a_field_is_caught() -> None:
    current = copy.deepcopy(RELEASED)
    current["millrace.v1.Page"]["7"] = current["millrace.v1.Page"].pop("1")
    assert breaches(RELEASED, current) == ["millrace.v1.Page: 1 (uint32 page_size) is gone"]
