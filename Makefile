# Everything a fresh clone needs: `make demo` shows the main job, `make test` runs every check.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test gpu-test lint format clean

demo: $(STAMP)
	$(BIN)/n2n-deploy demo -o demo

# A process for each folder: in one for all, native libraries of one test have been seen to damage the memory of another.
test: $(STAMP) lint
	set -e; for part in tests/*/ tests/test_*.py; do \
		case $$part in *__pycache__*) continue;; esac; \
		OMP_NUM_THREADS=1 $(BIN)/pytest --quiet --numprocesses=auto $$part; \
	done

# Everything that needs a GPU; without one it says so and fails: a skip is not a pass. onnxruntime-gpu replaces onnxruntime.
gpu-test: $(STAMP)
	@$(BIN)/python -c 'import sys; from n2n_deploy.engines.gpus import driver; problem = driver().problem; print(f"SKIPPED: {problem}" if problem else driver()); sys.exit(77 if problem else 0)'
	$(BIN)/python -m pip uninstall --quiet --yes onnxruntime
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[gpu,tensorrt,rtx]' tensorrt-lean-cu13
	$(BIN)/pytest tests/gpu

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# constraints.txt pins every version, torch's CPU build among them: the registry's newest torch brings gigabytes of CUDA.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "n2n-deploy needs Python 3.11 or newer; this is $$($(PYTHON) -V). Name another: make PYTHON=python3.12"; exit 3; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[cpu,train,export,report,sign,cluster,dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info demo
