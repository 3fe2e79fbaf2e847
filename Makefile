# Both `make demo` and `make test` set up everything they need in .venv, from Python 3.11+ alone.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
STAMP := $(VENV)/.installed
export PATH := $(CURDIR)/$(BIN):$(PATH)
export AXOLOTL_DO_NOT_TRACK ?= 1

.PHONY: help setup demo test test-all lint types bench clean

help:
	@echo "make demo      small potion world: base, SFT, SafeKey, DeRTa and all four losses, compared; 5 minutes"
	@echo "make test      the test suite"
	@echo "make test-all  the suite with its slow tests"
	@echo "make lint      ruff;  make types  mypy"
	@echo "make bench     cost of a training step, written to benchmarks/results/"
	@echo "make clean     remove the environment and the demo's files"

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade --quiet pip
	$(BIN)/python -m pip install --quiet --progress-bar off -e '.[dev]'
	@touch $@

setup: $(STAMP)

demo: $(STAMP)
	$(BIN)/python -m safekey_peft.lab

test: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test-all: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --slow

lint: $(STAMP)
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python -m benchmarks.step_cost

clean:
	rm -rf $(VENV) demo-run bench-run last_run_prepared
