"""Millrace: the five services, the words they share and the plumbing they stand on."""

import os

# gRPC's fork handlers abort a child that is started under traffic ("Check failed: next_worker->state == KICKED")
# before it reaches its own program. A child that only executes another program needs none of them. It must be said
# before anything imports grpc, and this file comes first.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

__version__ = "0.1.0"
"""As in pyproject.toml: a container has the code without the distribution's metadata."""
