# The one entry point for people, hooks and CI. Needs make and Python 3.11 or newer.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
VENV := .venv/bin
DEV := .venv/.dev
READY := $(if $(wildcard $(DEV)),$(DEV),.venv/.ready)

.DEFAULT_GOAL := help
.PHONY: help run test bench lint format clean lock

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

run: $(READY) ## start everything on this machine; Ctrl-C stops it
	@$(VENV)/python manage.py up $(ARGS)

test: $(DEV) ## run the checks and tests; ARGS="tests/decider -k quota" for some of them
	@$(VENV)/python -m pytest -q $(ARGS)

bench: $(DEV) ## measure against peers; ONLY=name for one part
	@$(VENV)/python -m bench $(ONLY)

lint: $(DEV) ## style, types and import rules
	@$(VENV)/ruff check . && $(VENV)/ruff format --check . && $(VENV)/mypy && $(VENV)/lint-imports --no-logo

format: $(DEV) ## put the code into shape
	@$(VENV)/ruff check --fix . && $(VENV)/ruff format .

clean: ## forget all data that `make run` kept
	@if [ -S var/run/supervisor.sock ] && [ -f var/run/up.pid ] && kill -0 "$$(cat var/run/up.pid)" 2>/dev/null; then \
		echo "sluice: it is still running. Stop it with Ctrl-C first." >&2; exit 1; fi
	@rm -rf var .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache

lock: $(DEV) ## resolve the dependencies anew
	@$(VENV)/uv pip compile $(LOCK_FLAGS) --group setup pyproject.toml -o requirements.lock
	@$(VENV)/uv pip compile $(LOCK_FLAGS) --group setup --group dev pyproject.toml -c requirements.lock -o requirements-dev.lock

LOCK_FLAGS := --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
	--no-annotate $(if $(UPGRADE),--upgrade)

.venv/.ready: requirements.lock
	$(call install,)
	@touch $@

$(DEV): requirements-dev.lock
	$(call install,--dev)
	@touch $@

define install
@if [ -z "$(PYTHON)" ]; then echo "sluice: no Python 3.11 or newer was found. Install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; fi
@$(PYTHON) bootstrap.py $(1)
endef
