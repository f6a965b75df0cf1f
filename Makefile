# Developer commands. A change must pass `make check`; .ci/run does the same on a new machine.
.PHONY: sync fmt lint type test test-all test-floor torchtext trackers bench check

FLOOR_TORCH := $(shell sed -n 's/.*"torch>=\([0-9.]*\)".*/\1/p' packages/core/pyproject.toml)
FLOOR_VENV ?= .venv-floor

sync:  ## install all packages and tools in their locked versions
	uv sync --frozen

fmt:  ## format the code and apply ruff's fixes
	uv run ruff check --fix
	uv run ruff format

lint:  ## check style, format and import contracts
	uv run ruff check
	uv run ruff format --check
	uv run lint-imports

type:  ## check types with pyright: strict in core, basic elsewhere
	uv run pyright

test:  ## run the quick tests, with real data too if FLAMBEAU_DATA is set
	uv run pytest -n auto

test-all:  ## run the quick and slow tests, and the gpu tests if there is a CUDA device
	uv run pytest -m "not baselines"

test-floor:  ## run the quick tests with the oldest supported torch (an environment of 6 GB)
	uv venv --quiet --allow-existing $(FLOOR_VENV)
	uv pip install --quiet --python $(FLOOR_VENV) --group dev 'torch==$(FLOOR_TORCH).*'
	$(FLOOR_VENV)/bin/python -m pytest -n auto

torchtext:  ## compare flambeau_text with torchtext 0.18 (an environment of 4.9 GB)
	cd tests/torchtext && uv run --frozen pytest -q

trackers:  ## open the files of the trackers with their own readers (an environment of 5 GB)
	uv run --frozen --project tests/trackers pytest -q -m "" -p no:cacheprovider tests/core/callbacks/test_tracker_files.py

bench:  ## list the benchmarks; `uv run flambeau bench run quick` runs them
	uv run flambeau bench list

check: lint type test
