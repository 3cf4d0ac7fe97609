# Every target sets up what it needs by itself: a virtual environment in .venv, nothing global. `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
PYTEST_ARGS ?=
DRILL_ARGS ?=

BIN := $(VENV)/bin
# Set-up is done when this file is newer than what it was installed from. It is written last, so an interrupted set-up starts again.
RUN_READY := $(VENV)/.ready-run
DEV_READY := $(VENV)/.ready-dev
DEVKIT_READY := .venv-devkit/.ready
DEVKIT_PYTHON ?= $(PYTHON)
DEVKIT_ROOT ?= runs/check-devkit/world
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
SOURCES := frustum tests $(wildcard examples) $(wildcard benchmarks) $(wildcard tools)
# The demo counts the set-up into its time budget.
STARTED := $(shell date +%s)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow lint format types contract check check-devkit docs-figures benchmark drill gpu-check clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

$(RUN_READY): pyproject.toml constraints.txt
	@echo "Setting up $(VENV) for running frustum. The first time this downloads torch and takes a few minutes."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(INSTALL) -e ".[pretrained,tensorboard]"
	@touch $@

$(DEV_READY): pyproject.toml constraints.txt
	@echo "Setting up $(VENV) for development. The first time this downloads torch and takes a few minutes."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(INSTALL) -e ".[pretrained,tensorboard,dev]"
	@touch $(RUN_READY) $@

setup: $(DEV_READY) ## set up the environment for development

demo: $(RUN_READY) ## generate a city, train FlashOCC-tiny on it, evaluate and write a report (at most 15 minutes on two cores)
	@$(BIN)/frustum demo --started $(STARTED) $(DEMO_ARGS)

test: $(DEV_READY) ## the default tests
	@$(BIN)/python -m pytest -n $(JOBS) -m "not slow and not gpu and not devkit" $(PYTEST_ARGS)

test-slow: $(DEV_READY) ## the tests that take more than about 20 seconds each
	@$(BIN)/python -m pytest -m "slow and not gpu and not devkit" $(PYTEST_ARGS)

lint: $(DEV_READY) ## style and docstrings
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)

format: $(DEV_READY) ## rewrite the sources in the house style
	@$(BIN)/ruff check --fix $(SOURCES)
	@$(BIN)/ruff format $(SOURCES)

types: $(DEV_READY) ## static types
	@$(BIN)/mypy

contract: $(DEV_READY) ## imports point down through the layers
	@$(BIN)/lint-imports --cache-dir .import_linter_cache

check: lint types contract test ## everything that .ci/run does

$(DEVKIT_READY): Makefile
	@echo "Setting up .venv-devkit with the official nuscenes-devkit (it needs numpy < 2, so Python 3.12 or older)."
	@.venv-devkit/bin/python -m pip --version >/dev/null 2>&1 || $(DEVKIT_PYTHON) -m venv --clear .venv-devkit
	@.venv-devkit/bin/python -m pip install --disable-pip-version-check "nuscenes-devkit==1.2.0"
	@touch $@

check-devkit: $(RUN_READY) $(DEVKIT_READY) ## open a generated database with the official nuscenes-devkit and compare figures with it, in an environment of its own
	@$(BIN)/frustum data world $(DEVKIT_ROOT) --scenes 1 --val-scenes 1 --frames 4 --size 256x704
	@.venv-devkit/bin/python tools/check_devkit.py $(DEVKIT_ROOT) --python $(BIN)/python --out runs/check-devkit

docs-figures: $(RUN_READY) ## draw the pictures of README and docs from runs/demo
	@$(BIN)/python tools/docs_figures.py

benchmark: $(RUN_READY) ## measure how fast everything is, beside plain formulations (about half an hour): figures in runs/bench.json
	@$(BIN)/frustum bench --json runs/bench.json $(BENCH_ARGS)

drill: $(DEV_READY) ## kill commands, fill disks and damage files for about ten minutes, and print what came of it
	@$(BIN)/python -m tests.drill $(DRILL_ARGS)

gpu-check: ## on a machine with a GPU: tests, training, speed and memory there, in under six minutes; figures in runs/gpu. Installs nothing
	@$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) tools/gpu_check.py $(GPU_ARGS)

clean: ## remove the environments and caches, keep runs/
	rm -rf $(VENV) .venv-devkit .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
