# `make demo` and `make test` are all that a newcomer needs; both make .venv first.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# one more than there are cores, for some tests wait for a cluster or another environment
WORKERS ?= $(shell echo $$(( $$(nproc 2>/dev/null || echo 2) + 1 )))

.PHONY: help demo bench evidence-quick evidence test fuzz test-fast mutants lint format clean

help:  ## Show what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(STAMP)  ## The whole main job on a phantom cohort, about 2 minutes on 2 CPU cores
	$(BIN)/python experiments/demo/run.py

evidence-quick: $(STAMP)  ## T2w to FLAIR on phantoms, four methods, two seeds and their report, about 3 minutes
	$(BIN)/riskft data phantom runs/evidence/cohort --subjects 40 --spacing 3 --seed 1
	$(BIN)/riskft sweep experiments/phantom_cross_modality/quick.yaml --local -j 2
	$(BIN)/riskft compare runs/evidence/evidence_quick --out runs/evidence/evidence_quick_report --overwrite

evidence: $(STAMP)  ## The studies of experiments/, hours; finished runs are left out
	$(BIN)/python experiments/evidence.py

bench: $(STAMP)  ## Time and memory of riskft against MONAI, TorchIO and nnU-Net, about 15 minutes on 2 CPU cores
	$(BIN)/python experiments/benchmarks/bench.py

test: $(STAMP)  ## The whole test suite
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

DRAWS ?= 300
SEED ?= 0
fuzz: $(STAMP)  ## Commands with mistakes in them, DRAWS many from SEED on; none may end in a traceback
	RISKFT_FUZZ_DRAWS=$(DRAWS) RISKFT_FUZZ_SEED=$(SEED) $(BIN)/python -m pytest tests/fuzz -n 0 -s

test-fast: $(STAMP)  ## The tests that take no command line and no second process
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m 'not slow'

mutants: $(STAMP)  ## Which mistakes in the core do the fast tests not notice? About 15 minutes on 2 CPU cores
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[mutants]'
	$(BIN)/python experiments/reliability/mutants.py

lint: $(STAMP)  ## ruff, mypy --strict, and which part of the code may use which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)  ## Let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove the environment and caches, but no results
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache *.egg-info
