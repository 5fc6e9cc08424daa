# The checks and commands of this repository; `make help` lists them.
BACKEND ?= torch
CONFIG  ?= storms
PYTHON  ?= python3
# The versions that are installed: constraints.txt, constraints-lowest.txt, or /dev/null for any.
CONSTRAINTS ?= constraints.txt
BIN     := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help train format lint typecheck docs docs-serve test-docs test-start test-fast test test-suite test-cuda sanitize models bench bench-cuda wheel clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) \
		| while IFS='|' read -r name line; do printf '%-12s%s\n' "$$name" "$$line"; done

train: .venv/installed  ## train a model on the bundled storms; BACKEND=jax for JAX
	$(BIN)/ragged train --config $(CONFIG) --backend $(BACKEND)

format: .venv/installed  ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The import linter's cache hides new circles.
lint: .venv/installed  ## ruff, which package may import which, and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell

typecheck: .venv/installed  ## mypy, strict
	$(BIN)/mypy

# Two workers on two cores: threads of their own would wait for each other at every kernel. A
# program that several tests run is compiled by the first of them. What XLA compiles for a user the
# tests OPTIMISED prove, of JAX in float32; elsewhere it compiles faster, to slower code.
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal
# A program is one piece for LLVM, not thirty: what each piece costs by itself is most of it.
QUICK  := JAX_DISABLE_MOST_OPTIMIZATIONS=1 JAX_TRACEBACK_IN_LOCATIONS_LIMIT=0 \
	XLA_FLAGS="--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
# Hundreds of processes import the sources: the first compiles them.
unexport PYTHONDONTWRITEBYTECODE
test-docs test-fast test-suite: export OMP_NUM_THREADS = 1
test-docs test-fast test-suite: export JAX_COMPILATION_CACHE_DIR = $(CURDIR)/.venv/programs
test-docs test-fast test-suite: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS = 0
# Hypothesis reads every source for constants that it may draw: each one once.
test-docs test-fast test-suite: export HYPOTHESIS_STORAGE_DIRECTORY = $(CURDIR)/.venv/hypothesis
# Torch's compiler keeps the shape that each operation gives. To keep it takes longer than to find it
# again, as no two operations of a model are alike; tests/recurrent/test_compile.py does both.
test-docs test-fast test-suite: export TORCH_FAKE_TENSOR_DISPATCH_CACHE = 0

# For every save: the examples in docstrings, what a call refuses, the choice of a backend, data, and
# the promises on torch in float64, for which no program has to be compiled.
SUITE := conformance/ragged_conformance
FAST  := ragged tests/test_refusals.py tests/test_backend.py tests/data \
	$(addprefix $(SUITE)/test_,promises.py recurrent.py losses.py masks.py alignment.py packing.py)

# Each cell by kernels and by a scan, its gradients, and the steps of a training. What only stacks and
# turns what a cell computes, and rows of another number, XLA optimises no other way.
RECURRENT := recurrent.py recurrent_function.py
OPTIONS   := bias or bidirectional or two or everything or short
STEPS     := test_steps_equal_the_formula test_half_precision_computes_and_float32_keeps
JITTED    := $(addprefix $(SUITE)/test_promises.py::,test_jit_changes_no_number test_nnx_jit_changes_no_number)
OPTIMISED := $(addprefix $(SUITE)/test_,$(RECURRENT)) $(STEPS:%=$(SUITE)/test_training_steps.py::%) $(JITTED)
OR        := $(subst $() $(), or ,$(RECURRENT:%=test_%))
SHOWN     := ($(OR)) and not ($(OPTIONS)) or $(subst $() $(), or ,$(STEPS))
# What a row's neighbours, width and padding may change is the same in every dtype: nothing. On JAX,
# where each shape is a program to compile, float64 shows it, and the kernels in float32 are torch's.
RELATIONS := test_promises.py or jagged_rows_give or vmap_of_losses
# Dtypes and constants of float32 on JAX: one case of each loss, and one model with each module, show
# them. Other libraries' layers are compared with in float64.
REPEATED  := test_references.py and not torch- \
	or test_attention_models.py and (side or feature or shared or ungated or Temporal or AttentionLSTM and not forecast) \
	or test_embeddings.py and not (EncoderDecoderLSTM or refused) \
	or test_values_equal and not (lengths and steps)

# What these say of a call and its relatives, or of where values lie, holds in every dtype or in none:
# float64 alone, whose bounds are the narrowest, proves it here, and the sanitizers' harness runs the
# kernels' layouts and resets in float32. `pytest conformance --dtype float32` runs them too.
ANY_DTYPE := attention_transformations metamorphic metamorphic_losses \
	metamorphic_movement trajectory backends_agree alignment checkpoints dropout jagged masks packing resets
COMPILED  := $(SUITE)/test_promises.py::test_torch_compile_changes_no_number_and_serves_every_batch
PROVEN    := $(ANY_DTYPE:%=--ignore=$(SUITE)/test_%.py) $(COMPILED:%=--deselect=%) $(JITTED:%=--deselect=%)

DOCTESTS := docs/generate/doctests.py

test-fast: lint  ## lint and the quick tests, for every save
	$(QUICK) $(PYTEST) $(FAST) --backend torch --dtype float64 $(COMPILED:%=--deselect=%)

docs docs-serve: export NO_MKDOCS_2_WARNING = 1
docs: .venv/installed  ## build the documentation site into site/
	$(BIN)/python -m mkdocs build --strict

docs-serve: .venv/installed  ## show the site, and each change to it
	$(BIN)/python -m mkdocs serve --open

test-docs: .venv/installed .venv/forecasting  ## run the code of README.md and docs/, follow their links, look at the site
	$(QUICK) $(PYTEST) tests/docs tests/test_examples.py $(DOCTESTS)

test-start: .venv/installed  ## run the scripts of the pages in environments that pip fills from its index
	FROM_INDEX=1 $(BIN)/python -m pytest tests/docs/test_scripts.py

# mypy takes one core, and seldom has anything to say.
test: lint  ## every check and every test
	$(MAKE) --jobs=2 typecheck test-suite

test-suite: .venv/installed .venv/xla_cuda .venv/forecasting  ## every test
	$(PYTEST) $(OPTIMISED) --backend jax -k "not ($(OPTIONS))"
	$(QUICK) $(PYTEST) conformance --dtype float64
	$(QUICK) $(PYTEST) conformance ragged backends tests $(DOCTESTS) $(PROVEN) \
		-k "not (conformance and jax and ($(SHOWN) or $(RELATIONS) or $(REPEATED)))"

sanitize: .venv/installed  ## the kernels under the sanitizers; part of `make test` too
	$(BIN)/python -m pytest tests/kernels/test_kernels_native.py tests/kernels/test_cuda_host.py -k sanitizers

# With the torch and JAX of PYTHON, whatever their versions. Ten minutes at most, in all.
ON_CUDA := .venv-cuda/bin/python -m pytest -p no:xdist --device cuda
ON_GPU  := -k "(oracle or alone or cannot_speak or equal_the_formula) and not compile"
test-cuda: .venv-cuda/installed  ## what needs a CUDA device, with the torch and JAX of PYTHON
	.venv-cuda/bin/python -m tests.cuda.devices
	timeout 150 .venv-cuda/bin/python -m pytest -p no:xdist tests/cuda
	timeout 120 .venv-cuda/bin/python -m pytest -p no:xdist tests/kernels/test_cuda_gpu.py
	for backend in $$(.venv-cuda/bin/python -m tests.cuda.devices); do \
		timeout 150 $(ON_CUDA) --backend $$backend $(addprefix $(SUITE)/test_,promises.py recurrent.py) \
			$(SUITE)/test_training_steps.py --report runs/cuda/$$backend $(ON_GPU) || exit 1; \
	done

models: .venv/installed  ## train all models on the storms with both backends; eleven minutes
	$(BIN)/python -m benchmarks.models

# Nothing is set here: the benchmarks take every core there is.
bench: .venv/bench  ## measure the layers beside their peers on this CPU
	$(BIN)/python -m benchmarks.run

# With the torch and JAX of PYTHON. A half of the time a point, and no Keras: ten minutes at most.
bench-cuda: .venv-cuda/installed  ## the same on a CUDA device, with the torch and JAX of PYTHON
	.venv-cuda/bin/python -m tests.cuda.devices
	timeout 570 .venv-cuda/bin/python -m benchmarks.run --device cuda --budget 0.35 --no-keras

# A wheel for Linux with the kernels in it; docs/guides/wheels.md. jaxlib's headers are here.
wheel: .venv/installed  ## build a wheel that carries the compiled kernels into dist/
	RAGGED_BUNDLE_KERNELS=1 $(BIN)/python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist .

.venv/bench: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable ".[torch,jax,train,bench]"
	touch $@

# The stamp is newer than what it was made from: a second call installs nothing.
.venv/installed: pyproject.toml $(filter-out /dev/null,$(CONSTRAINTS))
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable ".[torch,jax,train,test,dev,docs]"
	touch $@

# A compiler for GPUs that needs none, for tests/cuda; of the version of JAX that is installed.
.venv/xla_cuda: .venv/installed
	version=$$($(BIN)/python -c "import jax; print(jax.__version__)") && \
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $@ \
		jax-cuda13-plugin==$$version jax-cuda13-pjrt==$$version
	touch $@

# Libraries that docs/coming-from compares with, without what they require but no comparison uses.
.venv/forecasting: .venv/installed
	$(BIN)/python -m pip install --quiet --no-deps pytorch-forecasting==1.8.0 darts==0.48.1 \
		lightning==2.6.6 pytorch-lightning==2.6.6 lightning-utilities==0.15.3 torchmetrics==1.9.0 scikit-base==1.0.0
	rm -rf .venv/lib/python*/site-packages/tests  # pytorch-forecasting brings its own, in the way of ours
	touch $@

.venv-cuda/installed: pyproject.toml
	$(PYTHON) -m venv --system-site-packages .venv-cuda
	.venv-cuda/bin/python -m pip install --quiet --editable ".[train,test]"
	touch $@

clean:  ## remove the environments
	rm -rf .venv .venv-cuda
