"""The fixtures that every folder of tests may use; each server starts only when a test asks for it."""

pytest_plugins = ["tests.fixtures.brokers", "tests.fixtures.databases", "tests.fixtures.stores"]
