#!/usr/bin/env bash
# Makes or brings up to date the virtual environment, from the lock files alone, every file checked by hash.
#   scripts/setup.sh run    what the services and the demo need
#   scripts/setup.sh dev    that and what checks them
# An environment that once had the dev packages keeps them. Settings: PYTHON (python3), VENV (.venv), GPU (1 puts
# onnxruntime-gpu in the place of onnxruntime: they share a module, so an environment has one of them),
# UV_CACHE_DIR (uv's own default, or .cache/uv where that lies on another file system: hard links are what makes it fast).
set -euo pipefail
cd "$(dirname "$0")/.."
kind=${1:-run}
python=${PYTHON:-python3}
venv=${VENV:-.venv}
started=$SECONDS

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

command -v "$python" >/dev/null || fail "'$python' is not on the PATH; install Python 3.11 or newer, or name one: make PYTHON=python3.12 ..."
version=$("$python" -c 'import platform; print(platform.python_version())')
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
    || fail "Python 3.11 or newer is needed, '$python' is $version; name another: make PYTHON=python3.12 ..."

if [ ! -x "$venv/bin/python" ]; then
    say "creating $venv (Python $version)"
    rm -rf "$venv"
    "$python" -m venv "$venv" \
        || fail "'$python -m venv' failed; on Debian and Ubuntu: apt-get install python3-venv"
fi
wanted=$(sed -n 's/^uv==\([^ ]*\).*/\1/p' requirements-setup.lock)
if [ "$("$venv/bin/uv" --version 2>/dev/null | cut -d' ' -f2)" != "$wanted" ]; then
    say "fetching uv $wanted"
    "$venv/bin/python" -m ensurepip --upgrade --default-pip >/dev/null 2>&1 || true
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-setup.lock
fi

if [ -z "${UV_CACHE_DIR:-}" ]; then
    cache=$("$venv/bin/uv" cache dir)
    mkdir -p "$cache" 2>/dev/null || true
    if [ ! -w "$cache" ] || ! "$python" -c 'import os, sys; sys.exit(len({os.stat(p).st_dev for p in sys.argv[1:]}) - 1)' "$cache" "$venv"; then
        export UV_CACHE_DIR="$PWD/.cache/uv"
    fi
fi
[ "$kind" = dev ] || [ ! -e "$venv/.ready-dev" ] || kind=dev
lock=requirements.lock
[ "$kind" = run ] || lock=requirements-dev.lock
export VIRTUAL_ENV="$PWD/$venv" UV_PYTHON_DOWNLOADS=never
case $venv in /*) VIRTUAL_ENV=$venv ;; esac

say "installing $(grep -c '^[a-z0-9].*==' "$lock") packages from $lock"
quiet=()
[ -t 2 ] || quiet=(--quiet)
"$venv/bin/uv" pip sync "${quiet[@]}" --require-hashes "$lock"
if [ "${GPU:-}" = 1 ] || [ -e "$venv/.ready-gpu" ]; then
    say "putting onnxruntime-gpu in the place of onnxruntime"
    "$venv/bin/uv" pip uninstall --quiet onnxruntime
    "$venv/bin/uv" pip install "${quiet[@]}" --no-deps --require-hashes -r requirements-gpu.lock
    touch "$venv/.ready-gpu"
fi
"$venv/bin/uv" pip install --quiet --no-deps --no-build-isolation --editable .
touch "$venv/.ready-run"
[ "$kind" = run ] || touch "$venv/.ready-dev"
say "ready in $((SECONDS - started)) s"
