# One word each. `make check` is what a change must pass; .ci/run does it on a bare machine.
.PHONY: sync fmt lint type test test-all test-floor torchtext bench check

FLOOR_TORCH := $(shell sed -n 's/.*"torch>=\([0-9.]*\)".*/\1/p' packages/core/pyproject.toml)
FLOOR_VENV ?= .venv-floor

sync:  ## the environment: every member and every tool, as locked
	uv sync --frozen

fmt:  ## rewrite files in the one format
	uv run ruff check --fix
	uv run ruff format

lint:  ## style, format and the direction of imports
	uv run ruff check
	uv run ruff format --check
	uv run lint-imports

type:  ## pyright: strict on core, basic elsewhere
	uv run pyright

test:  ## the quick tests; on real data too where FLAMBEAU_DATA is set
	uv run pytest -n auto

test-all:  ## the slow tests and, where there is a CUDA device, the gpu tests too
	uv run pytest -m "not baselines"

test-floor:  ## the quick tests on the oldest supported torch (an environment of 6 GB)
	uv venv --quiet --allow-existing $(FLOOR_VENV)
	uv pip install --quiet --python $(FLOOR_VENV) --group dev 'torch==$(FLOOR_TORCH).*'
	$(FLOOR_VENV)/bin/python -m pytest -n auto

torchtext:  ## text's twins and bridge against the real torchtext 0.18 (an environment of 4.9 GB)
	cd tests/torchtext && uv run --frozen pytest -q

bench:  ## what can be measured; `uv run flambeau bench run quick` measures it
	uv run flambeau bench list

check: lint type test
