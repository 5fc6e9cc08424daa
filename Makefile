# Everything a newcomer needs: `make train`, `make train BACKEND=jax`, `make test`, `make bench`.
BACKEND ?= torch
CONFIG  ?= storms
PYTHON  ?= python3
BIN     := .venv/bin

.PHONY: train test models bench bench-cuda clean

train: .venv/installed
	$(BIN)/ragged train --config $(CONFIG) --backend $(BACKEND)

# Two workers on two cores: threads of their own would wait for each other at every kernel. A
# large program that several tests run is compiled by the first of them (JAX has crashed writing its
# cache, once in thousands of programs, so small ones are not kept). What XLA compiles for a user is
# proved in float32; in float64 it compiles faster, to slower code.
test: export OMP_NUM_THREADS = 1
test: export JAX_COMPILATION_CACHE_DIR = $(CURDIR)/.venv/programs
test: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS = 1
test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist worksteal
	JAX_DISABLE_MOST_OPTIMIZATIONS=1 \
	$(BIN)/python -m pytest -n 2 --dist worksteal conformance --dtype float64

# All six models on the storms with both backends; half an hour.
models: .venv/installed
	$(BIN)/python -m benchmarks.models

# Nothing is set here: the benchmarks take every core there is.
bench: .venv/bench
	$(BIN)/python -m benchmarks.run

bench-cuda: .venv/bench
	$(BIN)/python -m benchmarks.run --device cuda

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
