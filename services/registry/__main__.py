"""`python -m services.registry` serves; `... rebuild [--check] [--json]` rebuilds the tables from the history."""

import sys

from services.kit.service import main
from services.registry.app import build
from services.registry.settings import RegistrySettings

if __name__ == "__main__":
    if sys.argv[1:2] == ["rebuild"]:
        from services.registry import rebuild

        sys.exit(rebuild.main(sys.argv[2:]))
    sys.exit(main(RegistrySettings, build))
