"""What Alembic runs: the kit's environment, with the gateway's tables."""

from services.gateway.outbound.tables import TABLES
from services.kit.persistence.sql.migrate import run_environment

run_environment(TABLES)
