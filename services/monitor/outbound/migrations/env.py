"""Alembic's entry: migrates the monitor's tables on the connection that was handed in."""

from services.kit.persistence.sql.migrate import run_environment
from services.monitor.outbound.tables import MONITOR_TABLES

run_environment(MONITOR_TABLES)
