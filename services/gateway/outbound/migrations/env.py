"""What Alembic runs: the kit's environment over this room's tables."""

from services.gateway.outbound.tables import TABLES
from services.kit.sql.migrate import run_environment

run_environment(TABLES)
