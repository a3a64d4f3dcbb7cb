# Bare `make` prints the goals. Every goal may be run twice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
# make test CLUSTER=no leaves out the tests that need root and Go.
CLUSTER ?= yes
# Two processes take file after file; tests that measure (`paced`) run alone, one after the other.
TWO := -n 2 --dist loadfile --no-loadscope-reorder
.PHONY: help demo test cluster check bench manifests soak lint format clean

help: ## these lines
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(READY): pyproject.toml constraints.txt
	@echo "venv: installing Python packages into $(VENV) (downloads about 320 MB the first time, 1.3 GB on disk)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)
	@echo "venv: ready, $$(du -sm $(VENV) | cut -f1) MB on disk"

demo: ## five agents in namespaces, 2 % loss injected on one, found and shown (about a minute)
	@$(PYTHON) kpatrol/preflight.py demo
	@$(MAKE) --no-print-directory --silent $(READY)
	@$(BIN)/kpatrol lab --file docs/examples/reach-task.yaml --agents 5 --max-qps 100 --minute-s 8 \
	  --fault 'ingress node-3 loss=2%' || test $$? -eq 1

check: ## ruff, mypy --strict, import-linter, unit tests (under a minute)
	@$(PYTHON) kpatrol/preflight.py check
	@$(MAKE) --no-print-directory --silent $(READY)
	@$(MAKE) --no-print-directory lint
	@$(BIN)/python -m pytest tests/unit -q $(TWO)

lint: ## ruff, mypy --strict, import-linter
	@$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-cache >/dev/null || $(BIN)/lint-imports

format: ## ruff format, ruff --fix
	@$(BIN)/ruff format --quiet . && $(BIN)/ruff check --fix --quiet .

test: ## every tier: unit, integration (real Kafka, ClickHouse engine, namespaces), the lab, a real Kubernetes cluster
	@$(PYTHON) kpatrol/preflight.py test$(if $(filter no,$(CLUSTER)),-without-cluster)
	@$(MAKE) --no-print-directory --silent $(READY)
	@$(MAKE) --no-print-directory lint
	@$(BIN)/python -m pytest tests/unit -q $(TWO)
	@$(BIN)/python -m pytest tests/integration -m 'not paced' $(TWO) --durations=15
	@$(BIN)/python -m pytest tests/integration -m paced --durations=15
	@$(if $(filter no,$(CLUSTER)),true,$(MAKE) --no-print-directory cluster)

cluster: ## real Kubernetes in network namespaces; as root; builds it with Go the first time (15 minutes)
	@$(PYTHON) kpatrol/preflight.py cluster
	@$(MAKE) --no-print-directory --silent $(READY)
	@$(BIN)/python -m tests.cluster build
	@$(BIN)/python -m pytest tests/cluster --durations=15

bench: ## measurements with a budget, side by side with their peers; writes bench/RESULTS.md
	@$(PYTHON) kpatrol/preflight.py bench
	@$(MAKE) --no-print-directory --silent $(READY)
	@$(BIN)/python -m bench

manifests: ## deploy/small.yaml from the chart (Helm; built once by Go where there is none)
	@$(MAKE) --no-print-directory --silent $(READY)
	@$(BIN)/python -m deploy.render

soak: ## long runs: chaos and accuracy; by hand, figures go to bench/
	@$(PYTHON) kpatrol/preflight.py soak
	@$(MAKE) --no-print-directory --silent $(READY)
	@$(BIN)/python -m pytest tests/soak -m soak

clean: ## remove the virtual environment and caches of this folder
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
