# The one entry point for people, hooks and CI. Needs make and Python 3.11 to 3.14.

ifndef PYTHON
PYTHON := $(shell for p in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	"$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null && echo "$$p" && break; done)
endif
# a program of the environment, which is made where SLUICE_HOME says (installation.py); no bytecode of its own beside the code
WITH := "$(or $(PYTHON),no-python)" -B bootstrap.py

# against PYTHONDONTWRITEBYTECODE, which many containers set: each process of a test run would compile every source anew
KEEP_BYTECODE := PYTHONDONTWRITEBYTECODE=

.DEFAULT_GOAL := help
.PHONY: help run test test-fast test-long coverage bench evaluate model lint format clean lock python

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

# exec: what ends make, such as SIGTERM, is to reach the program and not a shell before it
run: python ## start everything on this machine; Ctrl-C stops it
	@exec $(WITH) python manage.py up $(ARGS)

# worksteal: a file's tests stay on one core, as some share what takes seconds to make, until the other has nothing left
test-fast: python ## run the tests that need no server, on all cores, in random order
	@$(KEEP_BYTECODE) SLUICE_TESTS=fast $(WITH) --dev python -m pytest -q -n auto --dist worksteal $(ARGS)

# With ARGS as told; else all in random order: first what needs no server, on all cores, then the rest, one after the other, as
# they share servers. A module that follows one decider from test to test keeps its order (the mark `in_order`).
test: python ## run the checks and tests; ARGS="tests/decider -k quota" for some of them
ifdef ARGS
	@$(WITH) --dev python -m pytest -q $(ARGS)
else
	@$(KEEP_BYTECODE) SLUICE_TESTS=fast $(WITH) --dev python -m pytest -q -n auto --dist worksteal
	@$(KEEP_BYTECODE) SLUICE_TESTS=slow $(WITH) --dev python -m pytest -q
endif

# the faults that last 15 s (tests/faults), and a million random messages of each kind
test-long: export SLUICE_RANDOM_MESSAGES := 1000000
test-long: export SLUICE_RANDOM_EDITS := 100000
test-long: python ## run all tests, also those that take long; an hour or more
	@$(KEEP_BYTECODE) SLUICE_TESTS=fast $(WITH) --dev python -m pytest -q -n auto --dist worksteal
	@$(KEEP_BYTECODE) SLUICE_TESTS=long $(WITH) --dev python -m pytest -q

coverage: python ## the same with branch coverage, shown by room; slower
	@rm -rf .template-coverage
	@$(KEEP_BYTECODE) SLUICE_TESTS=fast $(WITH) --dev python -m pytest -q -n auto --dist worksteal --cov --cov-report=
	@$(KEEP_BYTECODE) SLUICE_TESTS=slow $(WITH) --dev python -m pytest -q --cov --cov-append --cov-report=
	@$(WITH) --dev python -m tests.coverage_by_room

bench: python ## measure against peers; ONLY=name for one part
	@$(WITH) --dev python -m bench $(ONLY)

evaluate: python ## judge limiters in simulated worlds; FULL=1 for all seeds
	@$(WITH) --dev python -m learning.evaluation $(if $(FULL),--full)

lint: python ## style, types and import rules
	@$(WITH) --dev ruff check .
	@$(WITH) --dev ruff format --check .
	@$(WITH) --dev djangofmt --check --quiet templates
	@$(WITH) --dev mypy
	@$(WITH) --dev lint-imports --no-logo --no-cache

model: python ## train the model that ships anew, minutes
	@$(WITH) python -m learning.training.train

format: python ## put the code into shape
	@$(WITH) --dev ruff check --fix .
	@$(WITH) --dev ruff format .
	@$(WITH) --dev djangofmt --quiet templates

clean: python ## forget all data that `make run` kept
	@"$(PYTHON)" -B installation.py

lock: python ## resolve the dependencies anew
	@$(WITH) --dev uv pip compile $(LOCK_FLAGS) --group setup pyproject.toml -o requirements.lock
	@$(WITH) --dev uv pip compile $(LOCK_FLAGS) --group setup --group dev pyproject.toml -c requirements.lock -o requirements-dev.lock

LOCK_FLAGS := --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
	--no-annotate $(if $(UPGRADE),--upgrade)

python:
	@if [ -z "$(PYTHON)" ]; then echo "sluice: no Python 3.11 to 3.14 was found. Install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; fi
