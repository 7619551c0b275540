# make quickstart and make test work in a fresh clone: both install first what is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
STUDY := studies/quickstart

.DEFAULT_GOAL := help
.PHONY: help install test test-slow test-cluster test-all lint format quickstart bench docs clean

help:  ## Say what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(STAMP)  ## Make .venv with everything; does nothing when nothing changed

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Apportion needs Python 3.11 or newer; name one with PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

test: install  ## Run the tests but the slow ones (a quarter of an hour on two cores)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: install  ## Run the slow tests (as long again)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m slow

test-cluster: install  ## Try cluster.yaml on hosts in namespaces (root; skipped where none can be made)
	$(BIN)/python -m pytest -m cluster tests/cluster

test-all: lint test test-slow test-cluster  ## Run everything (an hour)

lint: install  ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install  ## Mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

quickstart: install  ## Search the toy tasks, train and export a winner (3 to 6 minutes)
	$(BIN)/apportion search configs/quickstart.yaml $(if $(wildcard $(STUDY)/config.yaml),--resume)

bench: install  ## Run the benchmarks
	for file in benchmarks/*.py; do $(BIN)/python $$file --quick || exit 1; done

docs: install  ## Write docs/config.md from the config's dataclasses
	$(BIN)/python -m search.config.reference

clean:  ## Remove what was built; studies stay
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
