# One task per intention: `make help` lists them. Everything a task needs is installed by the task itself, into .venv.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
RUNTIME := .venv/.runtime
DEV := .venv/.dev

.PHONY: help
help: ## List the tasks
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 22

# -- set-up -----------------------------------------------------------------------------------------------------------
$(RUNTIME): requirements.lock pyproject.toml provider-shim/pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e . -e provider-shim
	@touch $@

$(DEV): $(RUNTIME) requirements-dev.lock requirements-terraform.lock
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements-dev.lock -r requirements-terraform.lock
	@touch $@

.PHONY: setup setup-dev lock
setup: $(RUNTIME) ## Install what running needs into .venv
setup-dev: $(DEV) ## Install what developing and testing need into .venv

UV_COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	--override <(echo 'cryptography>=45')
lock: $(DEV) ## Resolve the dependencies again and write the hashed locks
	$(UV_COMPILE) --group build pyproject.toml provider-shim/pyproject.toml -o requirements.lock
	$(UV_COMPILE) --group build --group dev pyproject.toml provider-shim/pyproject.toml -c requirements.lock -o requirements-dev.lock
	$(UV_COMPILE) --group terraform -c requirements.lock -o requirements-terraform.lock
