"""A version's lineage as a tree of plain lines: what it comes from, then what became of it."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

Node = Mapping[str, Any]

BACKWARD: Final = {
    "produced": "produced by",
    "read_by": "which read",
    "began_from": "which began from",
    "parent_of": "child of",
    "asked_for": "asked for by",
    "drifted": "of",
}
FORWARD: Final = {
    "judged_by": "judged",
    "rolled_out": "rolled out",
    "served": "served",
    "held": "held",
    "drifted": "drifted",
    "asked_for": "asked for",
    "produced": "produced",
    "parent_of": "parent of",
}
_SHOWN: Final = {
    "dataset": ("data_hash",),
    "run": ("code_version",),
    "version": ("precision", "digest"),
    "gate": ("against",),
    "rollout": ("outcome", "started_by", "started_because", "ended_because"),
    "deployment": ("from", "until"),
    "alias": ("from", "until"),
    "drift": ("p_value", "reason"),
}
LONGEST: Final = 19
"""Of a fact; hashes and times are cut there, `--json` has them whole."""


def tree(graph: Mapping[str, Any]) -> list[str]:
    """Each node is described once; where it comes up again it is only named."""
    nodes = {node["id"]: node for node in graph["nodes"]}
    root = f"version/{graph['model']}/{graph['version']}"
    seen = {root}
    lines = [f"{graph['model']} {_described(nodes[root])}"]
    back = _Side(nodes, [(e["target"], e["source"], e["relation"]) for e in graph["edges"]], BACKWARD)
    ahead = _Side(nodes, [(e["source"], e["target"], e["relation"]) for e in graph["edges"]], FORWARD)
    return [*lines, "comes from", *back.below(root, "", seen), "became", *ahead.below(root, "", seen)]


class _Side:
    """The graph in one direction, in words."""

    def __init__(self, nodes: Mapping[str, Node], edges: list[tuple[str, str, str]], words: Mapping[str, str]) -> None:
        self._nodes = nodes
        self._words = words
        self._edges = edges

    def below(self, position: str, indent: str, seen: set[str]) -> Iterator[str]:
        steps = [(to, relation) for start, to, relation in self._edges if start == position and relation in self._words]
        for number, (to, relation) in enumerate(steps, start=1):
            last = number == len(steps)
            again = to in seen
            seen.add(to)
            text = _named(self._nodes[to]) if again else _described(self._nodes[to])
            yield f"{indent}{'└─' if last else '├─'} {self._words[relation]} {text}"
            if not again:
                yield from self.below(to, indent + ("   " if last else "│  "), seen)


def _named(node: Node) -> str:
    return str(node["label"]) if node["kind"] == "version" else f"{node['kind'].replace('_', ' ')} {node['label']}"


def _described(node: Node) -> str:
    facts = node["facts"]
    expected = [name for name in _SHOWN.get(node["kind"], ()) if facts.get(name)]
    shown = [f"{name.replace('_', ' ')} {_short(name, facts[name])}" for name in expected]
    at = [f"at {node['at'][:LONGEST]}"] if node.get("at") and "from" not in facts else []
    return ", ".join([_named(node), *at, *shown])


def _short(name: str, value: str) -> str:
    return value if name.endswith(("reason", "because")) else value[:LONGEST]
