"""The compatibility page says what the clients met in this very run."""

import pytest

from tests.clients import page
from tests.clients.tried import recorded_calls

pytestmark = pytest.mark.slow


def test_the_page_says_what_was_tried() -> None:
    calls = recorded_calls()
    assert calls, "no client was tried"
    assert page.missing_rows(calls) == [], "run 'make compatibility', and look at what changed"
