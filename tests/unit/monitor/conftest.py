"""Small products on spinning threads take many times as long: one thread, where numpy is not loaded yet."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
