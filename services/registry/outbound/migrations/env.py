from services.kit.persistence.sql.migrate import run_environment
from services.registry.outbound.tables import TABLES

run_environment(TABLES)
