"""Adds what is new in the gRPC contract to the golden file of everything released; never takes anything back.

Run it in the change that adds the field or the method. Exits 1, naming each breach, when something released changed.
"""

import json
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.contracts.rpc_surface import Surface, breaches, surface  # noqa: E402  (the repository is put on the path above)

GOLDEN: Final = ROOT / "tests/contracts/golden/rpc.json"


def main() -> int:
    released: Surface = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    current = surface()
    broken = breaches(released, current)
    for breach in broken:
        print(f"breaking: {breach}")
    if broken:
        return 1
    GOLDEN.write_text(json.dumps(current, indent=2) + "\n")
    print(f"{len(current)} messages and services frozen")
    return 0


if __name__ == "__main__":
    sys.exit(main())
