# Two commands do all the set-up: `make quickstart` runs the main job, `make test` runs the tests.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help quickstart test faults chaos lint types check install clean

help: ## Show this list.
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 20

quickstart: install ## Install, start the service, run sweeps/quickstart.yaml to its leaderboard.
	$(BIN)/orch up
	$(BIN)/orch submit sweeps/quickstart.yaml --wait
	@echo
	$(BIN)/orch leaderboard --sweep quickstart
	@echo
	$(BIN)/orch status

# What starts clusters and servers has the machine to itself; all else runs side by side.
SERVICES := tests/journey tests/orchestrator/cluster tests/orchestrator/tracking
SERVICES += tests/faults/test_trials.py tests/faults/test_chaos.py

test: install-dev postgresql ## Install what the tests need and run them.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 $(SERVICES:%=--ignore=%)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SERVICES)

faults: install-dev postgresql ## Kill, cut off and fill up every part, at every point; about an hour.
	OMP_NUM_THREADS=1 ORCH_MODEL_EXAMPLES=150 $(BIN)/python -m pytest -m "faults or not faults" tests/faults tests/orchestrator/cluster/test_code.py

chaos: install-dev ## 40 trials among 32 faults drawn at random; prints what was lost, doubled or differs.
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.chaos

lint: install-dev ## Style, layering.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: install-dev ## Types.
	$(BIN)/mypy

check: lint types test ## Everything that CI runs.

install: $(VENV)/.installed

.PHONY: install-dev postgresql
install-dev: $(VENV)/.installed-dev

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "orch needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing orch and what it needs into $(VENV) (a few minutes the first time)"
	$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt $(wildcard requirements-parity.txt) | $(VENV)/.installed
	$(PIP) --editable '.[dev]'
	if [ -f requirements-parity.txt ]; then $(PIP) --no-deps --requirement requirements-parity.txt; fi
	@touch $@

# The tests start a private PostgreSQL of their own; only its programs must be there.
postgresql:
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null 2>&1 || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq postgresql >/dev/null; \
	  else echo "the tests need PostgreSQL's server programs: sudo apt-get install postgresql" >&2; exit 1; fi; }

clean: ## Remove what was installed and cached here.
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
