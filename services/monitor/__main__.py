"""`python -m services.monitor`."""

import os
import sys

if __name__ == "__main__":
    # Before numpy is loaded: one test takes milliseconds, and spinning threads would take them from the servers.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    from services.kit.service import main
    from services.monitor.app import build
    from services.monitor.settings import MonitorSettings

    sys.exit(main(MonitorSettings, build))
