# senet-ablate: `make` lists the targets. The first one called makes .venv and installs into it.

PYTHON ?= python3
VENV := .venv
CLI := $(VENV)/bin/senet-ablate

# Passed through to the program, for example: make ablate-ratio PROTOCOL=cifar10 SEEDS=5 DEVICE=cuda
PROTOCOL ?=
SEEDS ?=
JOBS ?=
DEVICE ?=
DATA ?=
STUDY ?=
ROWS ?=
ARGS ?=

CHOICE = $(if $(PROTOCOL),--protocol '$(PROTOCOL)') $(if $(ROWS),--rows '$(ROWS)') $(if $(STUDY),--study '$(STUDY)')
RUN = $(CHOICE) $(if $(SEEDS),--seeds '$(SEEDS)') $(if $(JOBS),--jobs '$(JOBS)') \
      $(if $(DEVICE),--device '$(DEVICE)') $(if $(DATA),--data '$(DATA)') $(ARGS)
LOOK = $(if $(PROTOCOL),--protocol '$(PROTOCOL)') $(if $(STUDY),--study '$(STUDY)') \
       $(if $(DEVICE),--device '$(DEVICE)') $(if $(DATA),--data '$(DATA)') $(ARGS)
TABLES := ratio squeeze gate stage integration inner nosqueeze controls pruning ratio-per-stage gain attention

.DEFAULT_GOAL := help
.PHONY: help install ablate $(TABLES:%=ablate-%) plan status count audit calibrate excitation prune latency bench chaos \
        bad-inputs report docs check lint test test-all test-browser test-cluster clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z%$$().:_-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  Variables: PROTOCOL= SEEDS= JOBS= DEVICE= DATA= STUDY= ROWS= (see senet-ablate run --help)"

# A stamp newer than its inputs means installed: a later call costs a file comparison.
$(VENV)/installed: pyproject.toml constraints.txt
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (torch is large: some minutes)"
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(VENV)/installed-cluster: $(VENV)/installed-dev
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,slurm,ray]'
	@touch $@

install: $(VENV)/installed ## Create .venv and install (the other targets do it when needed)

ablate: $(VENV)/installed ## Train all seven tables, each distinct network once, and write the report
	@$(CLI) run $(RUN) --report

ablate-ratio: ## Table 10: reduction ratio r = 2, 4, 8, 16, 32 and no SE
ablate-squeeze: ## Table 11: max or average pooling
ablate-gate: ## Table 12: ReLU, tanh or sigmoid gate
ablate-stage: ## Table 13: SE blocks in one stage or in all
ablate-integration: ## Table 14: standard, pre, post or identity position
ablate-inner: ## Table 15: SE after the 3x3 convolution
ablate-nosqueeze: ## Table 16: 1x1 convolutions instead of the squeeze
ablate-controls: ## Ours: control variants (other seeds; constant, random or no gate)
ablate-pruning: ## Ours: no SE in the last stage
ablate-ratio-per-stage: ## Ours: a reduction ratio that grows with the stage
ablate-gain: ## Tables 2 to 5: SE or no SE in one network, PROTOCOL=cifar10-mobilenet for example
ablate-attention: ## Ours: ECA, CBAM, BAM, GE, GC, SRM, SimAM, SK, … beside SE, each at its own place

$(TABLES:%=ablate-%): ablate-%: $(VENV)/installed
	@$(CLI) run $* $(RUN) --report

plan: $(VENV)/installed ## Show what would be trained, how long it takes and what it can decide
	@$(CLI) plan $(CHOICE) $(if $(SEEDS),--seeds '$(SEEDS)') $(ARGS)

status: $(VENV)/installed ## Show which runs are finished, unfinished or failed
	@$(CLI) status $(CHOICE) $(if $(SEEDS),--seeds '$(SEEDS)') $(ARGS)

count: $(VENV)/installed ## Count parameters and multiply-adds, beside the paper's; no training, no data
	@$(CLI) count $(if $(PROTOCOL),--protocol '$(PROTOCOL)') $(ARGS)

audit: $(VENV)/installed ## Check that variants differ only as declared
	@$(CLI) audit $(if $(PROTOCOL),--protocol '$(PROTOCOL)') $(if $(STUDY),--study '$(STUDY)') $(ARGS)

calibrate: $(VENV)/installed ## Check error rates and intervals on simulated studies with known truth (minutes)
	@$(CLI) calibrate $(ARGS)

excitation: $(VENV)/installed ## Show what the SE blocks of trained networks do: ARGS='gate:sigmoid gate:tanh'
	@$(CLI) excitation $(LOOK)

prune: $(VENV)/installed ## Show the error with the SE blocks of each stage switched off: ARGS='ratio:r16'
	@$(CLI) prune $(LOOK)

bench: $(VENV)/installed ## Measure speed relative to a usual script and a bare loop (with DATA= also on images)
	@$(VENV)/bin/python benchmarks/bench.py $(if $(DATA),--data '$(DATA)') $(ARGS)

chaos: $(VENV)/installed ## Inject 200 faults: killed processes, a full disk, damaged files (a quarter of an hour)
	@$(VENV)/bin/python tests/stress/chaos.py $(ARGS)

report: $(VENV)/installed ## Write the report again
	@$(CLI) report $(CHOICE) $(ARGS)

docs: $(VENV)/installed ## Write the generated parts of README.md and docs/ again
	@$(VENV)/bin/python docs/generate.py

bad-inputs: $(VENV)/installed-dev ## Try 10,000 generated bad inputs on every option and file (minutes)
	@$(VENV)/bin/python tests/stress/bad_inputs.py $(ARGS)

check: lint test ## Run lint, format, types and tests

lint: $(VENV)/installed-dev ## Check lint, format, types and the order of imports
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

test: $(VENV)/installed-dev ## Run the tests (minutes)
	$(VENV)/bin/python -m pytest

test-all: $(VENV)/installed-dev ## Run all tests, the slow ones included
	$(VENV)/bin/python -m pytest -m 'not browser and not cluster'

test-browser: $(VENV)/installed-dev ## Test the report's page in Chromium, which must be installed
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[browser]'
	$(VENV)/bin/python -m pytest -m browser

test-cluster: $(VENV)/installed-cluster ## Test studies on real Ray nodes and Slurm daemons (apt: slurm-wlm, munge)
	$(VENV)/bin/python -m pytest -m cluster

latency: $(VENV)/installed ## Measure the time of each variant on this machine, for the report
	@$(CLI) latency $(CHOICE) $(if $(DEVICE),--device '$(DEVICE)') $(ARGS)

clean: ## Remove .venv and caches; keep results and reports
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
