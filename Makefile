# Everything one does with this repository.  `make help` lists it.
#
# `make demo` and `make test` need Python 3.11 or later and make; they install the rest into .venv by themselves.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := .venv-peers
PACKAGES := trailmark engine checkpoint_stores reducers
WORKERS ?= 2

.PHONY: help demo test lint fmt bench bench-sizes bench-peers plots docs clean

help: ## Print this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP) ## Install what is needed and run the demo (ARGS="--decision approve --by NAME" where nobody can be asked)
	$(BIN)/python examples/environment_audit.py $(ARGS)

test: $(STAMP) ## Install what is needed and run all tests and doctests (WORKERS=n, ARGS="-k name")
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

lint: $(STAMP) ## Check style, types and borders
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(STAMP) ## Format the code and apply safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## Run the benchmarks: one table, beside what was kept (ARGS=--keep keeps this one)
	$(BIN)/python benchmarks/everything.py $(ARGS)

bench-sizes: $(STAMP) ## Measure cost against size, and a database with 1,000,000 checkpoints (ARGS=--keep keeps the figures)
	$(BIN)/python benchmarks/bench_large.py $(ARGS)
	$(BIN)/python benchmarks/bench_sizes.py $(ARGS)

bench-peers: $(PEERS)/.installed ## Run the same work over langgraph, pydantic-graph, burr and dbos, too (ARGS="--quick", "--keep", "sqlite")
	cd benchmarks && ../$(PEERS)/bin/python -m peers.compare $(ARGS)

plots: $(PEERS)/.installed ## Draw the kept figures of cost against size
	$(PEERS)/bin/python benchmarks/plots.py

docs: $(STAMP) ## Write what is made from the code: reference pages, figures, the names of tables
	$(BIN)/python docs/build_schema.py
	$(BIN)/python docs/build_reference.py
	$(BIN)/python docs/build_features.py
	$(BIN)/python docs/build_figures.py

clean: ## Remove what the other targets made
	rm -rf $(VENV) $(PEERS) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find $(PACKAGES) tests examples benchmarks -type d -name __pycache__ -prune -exec rm -rf {} +

# Interpreters are tried by running them: a name on PATH may be too old, or a shim that finds nothing behind it.
$(STAMP): pyproject.toml
	@check='import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'; \
	if ! $(BIN)/python -c "import pip; $$check" 2>/dev/null; then \
		found=; \
		for candidate in $(PYTHON) python3.13 python3.12 python3.11 python3 python; do \
			if $$candidate -c "$$check" >/dev/null 2>&1; then found=$$candidate; break; fi; \
		done; \
		if [ -z "$$found" ]; then \
			echo "No Python 3.11 or later (with venv) was found; type: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; \
		fi; \
		rm -rf $(VENV); \
		echo "Installing into $(VENV) with $$($$found --version) ..."; \
		$$found -m venv $(VENV); \
	fi
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

# The peers live in an environment of their own, and trailmark beside them: one interpreter, the same drivers for all.
$(PEERS)/.installed: benchmarks/peers/requirements.txt pyproject.toml | $(STAMP)
	@echo "Installing the peers into $(PEERS) ..."
	@$(BIN)/python -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement benchmarks/peers/requirements.txt --editable .
	@touch $@
