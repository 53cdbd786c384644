# Everything a fresh clone needs: `make demo` shows the main job, `make test` runs every check.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS := cpu,train,export,movies,report,sign,cluster,docs,dev

.PHONY: demo test docs other-python upgrade gpu-test lint format clean

demo: $(STAMP)
	$(BIN)/n2n-deploy demo -o demo

test: $(STAMP) lint
	OMP_NUM_THREADS=1 $(BIN)/pytest --quiet --numprocesses=auto $(PYTEST_OPTIONS)

# The site, in build/site; a broken link or reference is an error. PYTHONPATH: the reference is made from this tree.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(BIN)/mkdocs build --quiet --clean

# A processing node's part, which needs no torch, under another Python: make other-python OTHER_PYTHON=python3.14
OTHER := .venv-other/bin/python
other-python:
	$(OTHER_PYTHON) -m venv --clear .venv-other
	$(OTHER) -m pip install --quiet --constraint constraints.txt --editable '.[cpu,movies,report,sign]' h5py onnx pytest pytest-xdist
	OMP_NUM_THREADS=1 $(OTHER) -m pytest --quiet --numprocesses=auto -r fE $(OTHER_TESTS)
OTHER_TESTS := --ignore=tests/core/test_options.py $(addprefix tests/,core files imaging io movies statistics denoiser batch/test_denoise.py \
	batch/test_tables.py) # test_options compares with train's

# Raise the pins in constraints.txt to what pip finds newest, and run every check with them. For torch see .ci/upgrade.py.
# Packages for GPUs alone (CuPy, TensorRT, onnxruntime-gpu) are not looked up: `make gpu-test` must follow where those are raised.
upgrade: $(STAMP)
	mkdir -p build
	grep '^torch==' constraints.txt >build/torch.txt
	$(BIN)/python -m pip install --quiet --dry-run --ignore-installed --report build/upgrade.json --constraint build/torch.txt '.[$(EXTRAS)]'
	$(BIN)/python .ci/upgrade.py build/upgrade.json
	$(MAKE) test

# Everything that needs a GPU; without one it says so and fails: a skip is not a pass. It has an environment of its own,
# for onnxruntime-gpu takes onnxruntime's place (which the extra export brings) and torch must be a build with CUDA.
# benchmarks.throughput and benchmarks.training run there too: .venv-gpu/bin/python -m benchmarks.throughput
GPU_PYTHON := .venv-gpu/bin/python
GPU_PIP := env -u PIP_EXTRA_INDEX_URL -u PIP_FIND_LINKS $(GPU_PYTHON) -m pip
gpu-test: $(STAMP)
	@$(BIN)/python -c 'import sys; from n2n_deploy.device.gpus import driver; problem = driver().problem; print(f"SKIPPED: {problem}" if problem else driver()); sys.exit(77 if problem else 0)'
	test -x $(GPU_PYTHON) || $(PYTHON) -m venv .venv-gpu
	grep -v -E '^(nvidia|cuda)-' constraints.txt >.venv-gpu/constraints.txt # torch pins the CUDA it was built with
	$(GPU_PIP) install --quiet --constraint .venv-gpu/constraints.txt --editable '.[gpu,rtx,train,export,report,sign,dev]'
	$(GPU_PIP) install --quiet --constraint .venv-gpu/constraints.txt tensorrt tensorrt-lean-cu13 || echo 'TensorRT cannot be installed here: its tests will skip'
	$(GPU_PIP) uninstall --quiet --yes onnxruntime onnxruntime-gpu
	$(GPU_PIP) install --quiet --constraint .venv-gpu/constraints.txt --no-deps onnxruntime-gpu
	$(GPU_PYTHON) -m pytest tests/gpu -m "not gpu_memory"
	$(GPU_PYTHON) -m pytest tests/gpu -m gpu_memory # alone: they measure what is free on the GPU
	@$(GPU_PYTHON) -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else f"torch {torch.__version__} cannot use the GPU, so training was not tested")'
	@$(GPU_PYTHON) -c 'import tensorrt' || { echo 'TensorRT was not tested'; exit 1; }

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/codespell

format: $(STAMP)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# constraints.txt pins every version, torch's CPU build among them: the registry's newest torch brings gigabytes of CUDA.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "n2n-deploy needs Python 3.11 or newer; this is $$($(PYTHON) -V). Name another: make PYTHON=python3.12"; exit 3; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps nvidia-pytriton || echo 'no Triton server here: its tests will skip' # it has the server, and asks for NumPy 1
	touch $@

clean:
	rm -rf $(VENV) .venv-gpu .venv-other build dist *.egg-info demo
