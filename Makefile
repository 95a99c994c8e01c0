# `make` alone lists what can be made. Everything runs in .venv, which is made when it is missing or out of date.
ifeq ($(OS),Windows_NT)
$(error native Windows is not supported; install WSL2 (wsl --install in PowerShell) and run make inside it)
endif

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo setup test check e2e bench sim screenshots format pins clean distclean

PY := .venv/bin/python
# With it every process that a test starts would compile our modules anew.
unexport PYTHONDONTWRITEBYTECODE
# Where set-up built DeepSpeed's helper; tests that start the trainer themselves find it too.
export TORCH_EXTENSIONS_DIR ?= $(CURDIR)/.venv/torch_extensions
# How often the crash tests kill a worker, and how many simulated schedules `make sim` plays from which seed.
ROUNDS_TEST ?= 20
ROUNDS_E2E ?= 200
N ?= 10000
SEED ?=
# Extra arguments for pytest, for example: make test PYTEST='tests/store -x'
PYTEST ?=

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# From the start of make to the first loss is what a newcomer waits.
demo: export AINFINITY_DEMO_STARTED := $(shell date +%s)
demo: .venv/.ready ## fine-tune SmolLM2-135M on this machine and watch it (no GPU needed; the first run installs)
	@$(PY) -m scripts.demo

setup: .venv/.ready ## make .venv, and nothing else
	@echo ".venv is ready"

.venv/.ready: pyproject.toml constraints.txt scripts/setup.sh
	@sh scripts/setup.sh

test: .venv/.ready ## run all tests that take no minutes
	@echo "crash tests: AINFINITY_ROUNDS=$(ROUNDS_TEST)"
	@AINFINITY_ROUNDS=$(ROUNDS_TEST) $(PY) -m pytest -q -m "not e2e" $(PYTEST)

check: .venv/.ready ## check formatting, lint, types and layers
	@.venv/bin/ruff format --check --quiet . || { echo "run: make format"; exit 1; }
	@.venv/bin/ruff check --quiet .
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 .venv/bin/pyright
	@.venv/bin/lint-imports --no-cache

e2e: .venv/.ready ## check the demo, the crash tests in full, and jobs on a real Slurm (root and slurm-loopback needed)
	@echo "crash tests: AINFINITY_ROUNDS=$(ROUNDS_E2E)"
	@AINFINITY_ROUNDS=$(ROUNDS_E2E) $(PY) -m pytest -q tests/crash tests/e2e --ignore=tests/e2e/slurm $(PYTEST)
	@AINFINITY_ROUNDS=$(ROUNDS_E2E) $(PY) -m pytest -q tests/e2e/slurm $(PYTEST) || { \
		echo; echo "======== REAL SLURM: some tests FAILED; they are tried once more, on a fresh cluster"; echo; \
		AINFINITY_SLURM_MINUTES=8 AINFINITY_ROUNDS=$(ROUNDS_E2E) $(PY) -m pytest -q --lf tests/e2e/slurm $(PYTEST); }

bench: .venv/.ready ## measure speed against controls; the table is also written to build/bench.json
	@$(PY) -m scripts.bench

sim: .venv/.ready ## play N=10000 simulated schedules of the engine; a failing SEED=... replays exactly
	@$(PY) -m tests.sim --count $(N) $(if $(SEED),--seed $(SEED))

screenshots: .venv/.ready ## draw the screenshots in docs/images again
	@$(PY) -m scripts.screenshots

format: .venv/.ready ## format the code and fix what ruff can fix
	@.venv/bin/ruff check --quiet --fix . ; .venv/bin/ruff format --quiet .

pins: .venv/.ready ## resolve the newest packages and write constraints.txt anew
	@$(PY) -m scripts.pins

clean: ## remove what tests and builds left
	@rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean ## remove .venv too
	@rm -rf .venv
