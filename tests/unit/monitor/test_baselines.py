"""Baselines come from files that are checked, never unpickled."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray

from services.contracts.artifact import Precision
from services.monitor.errors import BaselineRefused
from services.monitor.outbound.baselines import read_baseline


def saved(rows: NDArray[np.generic], *, allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, rows, allow_pickle=allow_pickle)
    return file.getvalue()


def test_a_baseline_is_a_matrix_of_float32() -> None:
    rows = np.arange(64, dtype=np.float32).reshape(16, 4)
    assert (read_baseline(saved(rows), 1, Precision.INT8) == rows).all()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>not found</html>",
        saved(np.ones((16, 4), dtype=np.float32))[:100],
        saved(np.ones((16, 4))),
        saved(np.ones(16, dtype=np.float32)),
        saved(np.ones((3, 4), dtype=np.float32)),
        saved(np.full((16, 4), np.inf, dtype=np.float32)),
        saved(np.array([[{"a": 1}]], dtype=object), allow_pickle=True),
    ],
)
def test_anything_else_is_refused(content: bytes) -> None:
    with pytest.raises(BaselineRefused, match="int8 baseline of version 1"):
        read_baseline(content, 1, Precision.INT8)
