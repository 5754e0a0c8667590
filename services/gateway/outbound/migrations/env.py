"""What Alembic runs: the kit's environment; the gateway has no table of its own."""

from services.kit.sql.migrate import run_environment

run_environment(())
