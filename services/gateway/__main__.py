"""`python -m services.gateway`"""

import sys

from services.gateway.app import build
from services.gateway.settings import GatewaySettings
from services.kit.service import main

if __name__ == "__main__":
    sys.exit(main(GatewaySettings, build))
