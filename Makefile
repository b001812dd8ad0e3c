# Every target sets up what is missing first; a set-up that is done costs well under a second.
PYTHON ?= python3.11
BIN := .venv/bin
# One worker per core, a file of tests to each, and one thread for each worker: sharing cores costs far more than it gives.
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup demo test slow fuzz studies perf perf-smoke check up clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 16

setup:  ## create or repair the three environments
	@$(PYTHON) env/setup.py

demo: setup  ## a real catalog drop all the way to answers from a promoted model
	@$(BIN)/fittingroom demo

test: setup  ## style, types, import directions, then every test (under 20 minutes)
	@$(MAKE) --no-print-directory check
	@$(TESTS)

slow: setup  ## the tests left out of `make test` because they take long
	@$(TESTS) -m slow

fuzz: setup  ## ten minutes of each fuzzer over drop reading
	@FUZZ_SECONDS=600 $(BIN)/python -m pytest -s tests/fuzz -k any_drop
	@mkdir -p runs/fuzz
	@$(BIN)/python tests/fuzz/atheris_drops.py runs/fuzz tests/fuzz/corpus -max_total_time=600 -rss_limit_mb=3000 -artifact_prefix=runs/fuzz/

studies: setup  ## do the methods do what their papers claim? (hours; interrupt and resume at will)
	@$(BIN)/fittingroom land data/starter/drop-1
	@$(BIN)/dvc repro negatives corpus suites base
	@$(BIN)/python -m training.studies

perf: setup  ## our speed beside what a user would run instead, as ratios
	@$(BIN)/python -m perf

perf-smoke: setup  ## the same in small, in a few minutes
	@$(BIN)/python -m perf --smoke

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
