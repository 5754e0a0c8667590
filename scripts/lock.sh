#!/usr/bin/env bash
# Resolves the two lock files anew. They hold hashes and no address, so any mirror will do.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${UV:-.venv/bin/uv}
rooms=(--extra postgres --extra gateway --extra registry --extra monitor --extra trainer --extra inference --extra cli)
common=(--quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate)
"$uv" pip compile pyproject.toml "${common[@]}" "${rooms[@]}" -o requirements.lock
"$uv" pip compile pyproject.toml "${common[@]}" "${rooms[@]}" --group dev -c requirements.lock -o requirements-dev.lock
