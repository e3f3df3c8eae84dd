# Two commands matter: `make train` runs the main job on the embedded demo, `make test` runs every test that needs no GPU.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: env env-dev lint train train-code test test-core test-ranks test-slow gpu gpu-dry assets compare study reliability results clean help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

env: $(VENV)/.installed ## create .venv with the run-time requirements
env-dev: $(VENV)/.installed-dev ## ... and the linters, and the oracles that tests and benchmarks compare with

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

train-code: env ## the same for programs: plans for an executor that writes Python, which really runs
	$(BIN)/torchrun --standalone --nproc_per_node=1 train.py configs/code-demo.toml

assets: env ## rebuild the embedded models of both demos from their seeds (one to two hours on two cores)
	$(BIN)/python -m tracelift.worlds.build math
	$(BIN)/python -m tracelift.worlds.build code

lint: env-dev ## what CI asks of the code before it runs: format, rules, types
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/basedpyright

# One worker a core up to eight, each file in one worker, one thread each: the tests are many and small.
test: env-dev ## every test that needs no GPU
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not gpu and not slow" -n auto --maxprocesses 8 --dist loadfile

test-core: env ## the same without the oracles of requirements-dev.txt
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not gpu and not slow"

DECLARED := --arms exec_only,tracelift,gated --equal positions,seconds --rates --problems 600 --samples 2
compare: env ## the declared comparison of rewards on both demos, asset seed 0 (hours on two cores; resumable)
	$(BIN)/python -m benchmarks.rates --world math --seeds 100 --rates 1e-4,2e-4,4e-4,8e-4
	$(BIN)/python -m benchmarks.compare --world math $(DECLARED) -- --run.steps 120
	$(BIN)/python -m benchmarks.rates --world code --seeds 100 --rates 2e-4,4e-4,8e-4 -- --executor.repeats 3 --reward.runs apart
	$(BIN)/python -m benchmarks.compare --world code $(DECLARED) -- --run.steps 60 --executor.repeats 3 --reward.runs apart
	$(BIN)/python -m benchmarks.declared
	$(BIN)/python -m benchmarks.results

study: env ## when the mechanism matters, on the math demo (hours; resumable)
	$(BIN)/python -m benchmarks.study
	$(BIN)/python -m benchmarks.results

reliability: env ## how reliable one executor run is, and what the executor can do alone, on both demos (resumable)
	$(BIN)/python -m benchmarks.reliability --world math
	$(BIN)/python -m benchmarks.reliability --world code
	$(BIN)/python -m benchmarks.results

results: env ## docs/results.md from the committed figures
	$(BIN)/python -m benchmarks.results

# Tests of several processes at once, over and over: make test-ranks TIMES=20, with anything else running beside.
TIMES ?= 1
RANKS := tests/tracelift/distributed tests/train/test_lost_ranks.py tests/train/test_planner_loop.py tests/train/test_outage.py \
	tests/kernels/test_sharded_logprob.py tests/tracelift/training/test_sft.py tests/tracelift/reward_model/test_train.py \
	tests/tracelift/evaluation/test_arms.py
test-ranks: env-dev ## the tests of several ranks, TIMES times in a row
	for i in $$(seq $(TIMES)); do OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not gpu and not slow" -n auto --maxprocesses 8 \
		-k "rank or parallel or sharded or mode or shard or dies or limit" $(RANKS) || exit 1; done

test-slow: env-dev ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

gpu: env-dev ## what waits for a GPU, most important first, within 12 minutes (BASE=folder of SmolLM2 adds the comparison)
	$(BIN)/python -m benchmarks.gpu $(if $(BASE),--base $(BASE))

gpu-dry: env-dev ## the same parts on a CPU in tiny shapes
	$(BIN)/python -m benchmarks.gpu --dry

clean: ## remove the environment and all runs
	rm -rf $(VENV) runs
