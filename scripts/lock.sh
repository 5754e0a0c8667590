#!/usr/bin/env bash
# Resolves the lock files anew. They hold hashes and no address, so any mirror will do.
#   requirements.lock        what runs: every room, on Apache's brokers and databases or the embedded ones
#   requirements-dev.lock    that and what checks it
#   requirements-gpu.lock    inference on CUDA: it has onnxruntime-gpu in place of onnxruntime, which it excludes
#   requirements-clients.lock  the clients that the doors are tried with; an environment of its own
#   requirements-setup.lock  what pip needs to fetch before uv can do the rest
# Versions already locked stay unless the declared ranges forbid them; `UPGRADE=1` takes the newest.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${UV:-.venv/bin/uv}
rooms=(--extra postgres --extra gateway --extra registry --extra monitor --extra trainer --extra inference --extra cli)
common=(--quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate)
if [ "${UPGRADE:-}" = 1 ]; then common+=(--upgrade); fi
"$uv" pip compile pyproject.toml "${common[@]}" "${rooms[@]}" --group setup -o requirements.lock
"$uv" pip compile pyproject.toml "${common[@]}" "${rooms[@]}" --group setup --group dev -c requirements.lock -o requirements-dev.lock
"$uv" pip compile pyproject.toml "${common[@]}" --extra postgres --extra gpu --group setup -c requirements.lock -o requirements-gpu.lock
"$uv" pip compile "${common[@]}" --group pyproject.toml:clients -o requirements-clients.lock
"$uv" pip compile "${common[@]}" --group pyproject.toml:setup -c requirements.lock -o requirements-setup.lock
