"""The compatibility page tells what the clients met in this very run."""

import pytest

from tests.clients import page
from tests.clients.tried import told

pytestmark = pytest.mark.slow


def test_the_page_tells_what_was_tried() -> None:
    calls = told()
    assert calls, "no client was tried"
    assert page.missing_rows(calls) == [], "run 'make compatibility', and look at what changed"
