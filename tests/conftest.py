"""The fixtures that every folder of tests may use; each server starts only when a test asks for it.

Examples are drawn by Hypothesis under one of two profiles: `suite` (the default), and `fast` with a fifth of the
examples for the inner loop. Neither has a deadline or a bound on how long drawing may take: a stall of the machine is
no failure of what is tested. Under CI the examples follow from the test alone, so that a red run is red again.
"""

import os

from hypothesis import HealthCheck, settings

pytest_plugins = [
    "tests.fixtures.brokers",
    "tests.fixtures.databases",
    "tests.fixtures.metrics",
    "tests.fixtures.stores",
]

SUITE = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
    print_blob=True,
)
settings.register_profile("suite", SUITE)
settings.register_profile("fast", SUITE, max_examples=20)
settings.load_profile("suite")
