"""`python -m services.trainer` serves; with `end-runs` it ends every run that goes on on this machine."""

import sys

from services.kit.service import main
from services.trainer.app import build, end_runs
from services.trainer.settings import TrainerSettings

if __name__ == "__main__":
    sys.exit(end_runs() if sys.argv[1:] == ["end-runs"] else main(TrainerSettings, build))
