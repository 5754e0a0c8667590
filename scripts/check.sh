#!/usr/bin/env bash
# Every check that reads the code without running a service. All of them run; one failure fails the whole.
set -uo pipefail
cd "$(dirname "$0")/.."
failed=()

check() {
    local name=$1 started=$SECONDS
    shift
    if output=$("$@" 2>&1); then
        printf 'check: %-14s ok, %d s\n' "$name" $((SECONDS - started))
    else
        printf '%s\ncheck: %-14s FAILED, %d s\n' "$output" "$name" $((SECONDS - started))
        failed+=("$name")
    fi
}

folders=()
for folder in services demo scripts tests bench; do
    [ ! -d "$folder" ] || folders+=("$folder")
done

check ruff ruff check --no-cache .
check format ruff format --check .
check contracts python scripts/generate_contracts.py --check
check import-linter lint-imports --no-cache
check mypy mypy "${folders[@]}"
check laws python -m pytest -q -n 0 tests/laws
if [ ${#failed[@]} -gt 0 ]; then
    printf 'check: failed: %s\n' "${failed[*]}"
    exit 1
fi
