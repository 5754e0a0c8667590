"""`python -m services.trainer` serves."""

import sys

from services.kit.service import main
from services.trainer.app import build
from services.trainer.settings import TrainerSettings

if __name__ == "__main__":
    sys.exit(main(TrainerSettings, build))
