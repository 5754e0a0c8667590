# Two commands to start with: `make demo` and `make test`. Both do all the set-up themselves.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
BROKER ?=
KEEP ?=
ARGS ?=
LOCKS := pyproject.toml requirements-setup.lock requirements.lock scripts/setup.sh
# The environment is the project's own: without compiled modules every process compiles its imports anew, torch's too.
unexport PYTHONDONTWRITEBYTECODE
export MILLRACE_HOME ?= $(CURDIR)/.millrace

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

$(VENV)/.ready-run: $(LOCKS)
	@PYTHON="$(PYTHON)" VENV="$(VENV)" scripts/setup.sh run

$(VENV)/.ready-dev: $(LOCKS) requirements-dev.lock
	@PYTHON="$(PYTHON)" VENV="$(VENV)" scripts/setup.sh dev

.PHONY: setup
setup: $(VENV)/.ready-dev ## the virtual environment, with what checks the code

.PHONY: gpu
gpu: ## the same with onnxruntime-gpu, for the tests marked gpu and for serving on CUDA
	@PYTHON="$(PYTHON)" VENV="$(VENV)" GPU=1 scripts/setup.sh dev

.PHONY: demo
demo: $(VENV)/.ready-run ## the whole loop, live; BROKER=kafka for Apache Kafka, KEEP=1 leaves it running
	@$(BIN)/python -m demo $(if $(BROKER),--broker $(BROKER)) $(if $(filter-out 0,$(KEEP)),--keep) $(ARGS)

.PHONY: test
test: $(VENV)/.ready-dev ## every suite, on every part this machine has; tells what it left out
	@$(BIN)/python scripts/run_tests.py $(ARGS)

.PHONY: test-fast
test-fast: $(VENV)/.ready-dev ## the inner loop: units and contracts, under 30 seconds
	@$(BIN)/python scripts/run_tests.py --fast $(ARGS)

.PHONY: check
check: $(VENV)/.ready-dev ## ruff, mypy --strict, import-linter, the contract diff and the other laws
	@PATH="$(abspath $(BIN)):$$PATH" scripts/check.sh

.PHONY: compatibility
compatibility: $(VENV)/.ready-dev ## try the real clients, and write what came of it into docs/compatibility.md
	@rm -f .cache/tests/clients.json
	@$(BIN)/python -m pytest -q -n 0 tests/clients/test_clients.py tests/clients/test_generation.py
	@$(BIN)/python -m tests.clients.page

.PHONY: contracts
contracts: $(VENV)/.ready-dev ## write what is generated from the contracts
	@$(BIN)/python scripts/generate_contracts.py

.PHONY: bench
bench: $(VENV)/.ready-dev ## the figures that the shape decides, as a table and as JSON
	@$(BIN)/python -m bench $(ARGS)

.PHONY: mutants
mutants: $(VENV)/.ready-dev ## faults put into the rules one by one, and which of them no test notices; ARGS="--sample 0"
	@$(BIN)/python -m scripts.mutants $(ARGS)

.PHONY: format
format: $(VENV)/.ready-dev ## ruff's fixes and format
	@$(BIN)/ruff check --fix-only --quiet . && $(BIN)/ruff format .

.PHONY: lock
lock: $(VENV)/.ready-dev ## resolve the lock files anew; UPGRADE=1 takes the newest versions
	@UV="$(BIN)/uv" scripts/lock.sh

.PHONY: clean
clean: ## remove caches and what tests left; the environment and .millrace stay
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .cache/tests dist
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

.PHONY: clean-all
clean-all: clean ## and the environment and the data folder, once nothing runs
	@if [ -x $(BIN)/millrace ] && [ -d "$(MILLRACE_HOME)" ]; then $(BIN)/millrace down || true; fi
	@rm -rf $(VENV) .cache "$(MILLRACE_HOME)"
