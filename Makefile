# Every target sets up what is missing first; a set-up that is done costs well under a second.
PYTHON ?= python3.11
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo test study check up clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## /  make \1\t/' | expand -t 16

setup:  ## create or repair the three environments
	@$(PYTHON) env/setup.py

demo: setup  ## a real catalog drop all the way to answers from a promoted model
	@$(BIN)/fittingroom demo

test: setup  ## style, types, import directions, then every test (about 10 minutes)
	@$(MAKE) --no-print-directory check
	@$(BIN)/python -m pytest

study: setup  ## the longer studies left out of `make test`
	@$(BIN)/python -m pytest -m slow

check: setup  ## style, types and import directions only
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

up: setup  ## open the same graph in the Dagster UI
	@$(BIN)/fittingroom up

clean: setup  ## stop the server; remove runs, stored outputs and caches, keep the environments
	@$(BIN)/fittingroom stop
	@rm -rf runs store dvc.lock .dvc/cache .dvc/tmp .pytest_cache .mypy_cache .ruff_cache .hypothesis
