# Everything a person needs, on nothing but python3 (3.11+), venv and pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup demo test chaos upstream lint format docs bench clean
.DEFAULT_GOAL := help

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "kvworker needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,lint,docs]'
	@touch $@

setup: $(READY) ## Make the virtual environment

demo: $(READY) ## Run the example pipeline on the embedded stack
	$(BIN)/python -m examples.demo

test: $(READY) ## Run every test, on servers that the tests start themselves
	$(BIN)/python -m pytest

chaos: $(READY) ## Inject faults under load, and hold what callers were told against the database
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

bench: $(READY) ## Measure against floors in the same run; writes benchmarks/results.json
	$(BIN)/python -m benchmarks

clean: ## Remove the virtual environment and the caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist site
