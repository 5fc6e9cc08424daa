# Everything a newcomer needs: `make train`, `make train BACKEND=jax`, `make test`, `make bench`.
BACKEND ?= torch
CONFIG  ?= storms
PYTHON  ?= python3
BIN     := .venv/bin

.PHONY: train test sanitize models bench bench-cuda wheel clean

train: .venv/installed
	$(BIN)/ragged train --config $(CONFIG) --backend $(BACKEND)

# Two workers on two cores: threads of their own would wait for each other at every kernel. A
# program that several tests run is compiled by the first of them. What XLA compiles for a user the
# conformance suite proves in float32; elsewhere it compiles faster, to slower code.
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal
QUICK  := JAX_DISABLE_MOST_OPTIMIZATIONS=1 XLA_FLAGS=--xla_cpu_use_fusion_emitters=false

test: export OMP_NUM_THREADS = 1
test: export JAX_COMPILATION_CACHE_DIR = $(CURDIR)/.venv/programs
test: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS = 0
test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(PYTEST) conformance
	$(QUICK) $(PYTEST) conformance --dtype float64
	$(QUICK) $(PYTEST) ragged backends tests

# The kernels under the sanitizers of addresses, undefined behaviour and threads; `make test` too.
sanitize: .venv/installed
	$(BIN)/python -m pytest tests/kernels/test_kernels_native.py -k sanitizers

# All six models on the storms with both backends; half an hour.
models: .venv/installed
	$(BIN)/python -m benchmarks.models

# Nothing is set here: the benchmarks take every core there is.
bench: .venv/bench
	$(BIN)/python -m benchmarks.run

bench-cuda: .venv/bench
	$(BIN)/python -m benchmarks.run --device cuda

# A wheel for Linux on x86-64 with the kernels in it; docs/wheels.md. jaxlib's headers are here.
wheel: .venv/installed
	RAGGED_BUNDLE_KERNELS=1 $(BIN)/python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist .

.venv/bench: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[torch,jax,train,bench]"
	touch $@

# The stamp is newer than what it was made from: a second call installs nothing.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[torch,jax,train,test,dev]"
	touch $@

clean:
	rm -rf .venv
