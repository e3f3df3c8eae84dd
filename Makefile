# Two commands matter: `make train` runs the main job on the embedded demo, `make test` runs every test that needs no GPU.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: env env-dev train test test-slow assets clean help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

env: $(VENV)/.installed ## create .venv with the run-time requirements
env-dev: $(VENV)/.installed-dev ## ... and the oracles that tests and benchmarks compare with

$(VENV)/.installed: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -r requirements.txt
	touch $@

# torch first: some oracles ask for any torch, and the pin must already satisfy them.
$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(BIN)/pip install -q -r requirements-dev.txt
	touch $@

train: env ## train a planner for a frozen executor on the embedded demo
	$(BIN)/torchrun --standalone --nproc_per_node=1 train.py

test: env-dev ## every test that needs no GPU
	$(BIN)/python -m pytest -m "not gpu and not slow"

test-slow: env-dev ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

clean: ## remove the environment and all runs
	rm -rf $(VENV) runs
