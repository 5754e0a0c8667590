"""`python -m services.inference`"""

import sys

from services.inference.app import build
from services.inference.settings import InferenceSettings
from services.kit.service import main

if __name__ == "__main__":
    sys.exit(main(InferenceSettings, build))
