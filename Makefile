# senet-ablate: `make` lists the targets. The first one called makes .venv and installs into it.

PYTHON ?= python3
VENV := .venv
# Run the code of this folder, even if it was copied with a .venv that was installed from another folder.
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
PY := $(VENV)/bin/python
CLI := $(PY) -m senet_ablate

# Passed through to the program, for example: make ablate-ratio PROTOCOL=cifar10 SEEDS=5 DEVICE=cuda
# Not taken from the environment, where DATA and DEVICE may mean anything.
PROTOCOL =
SEEDS =
JOBS =
DEVICE =
DATA =
STUDY =
ROWS =
ARGS =

# An option with the value of a variable as it was typed, apostrophes and all; nothing where it is empty.
option = $(if $(value $(2)),--$(1) '$(subst ','\'',$(value $(2)))')
CHOICE = $(call option,protocol,PROTOCOL) $(call option,rows,ROWS) $(call option,study,STUDY)
HERE = $(call option,device,DEVICE) $(call option,data,DATA)
RUN = $(CHOICE) $(call option,seeds,SEEDS) $(call option,jobs,JOBS) $(HERE) $(ARGS)
LOOK = $(call option,protocol,PROTOCOL) $(call option,study,STUDY) $(HERE) $(ARGS)
TABLES := ratio squeeze gate stage integration inner nosqueeze controls pruning ratio-per-stage gain attention

.DEFAULT_GOAL := help
.PHONY: help install ablate $(TABLES:%=ablate-%) init plan status count audit calibrate excitation prune latency bench chaos \
        bad-inputs report docs check lint test test-all test-browser test-cluster clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z%$$().:_-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  Variables: PROTOCOL= SEEDS= JOBS= DEVICE= DATA= STUDY= ROWS= (see senet-ablate run --help)"

MADE_IN := $(shell cat $(VENV)/installed 2>/dev/null)
ifneq ($(MADE_IN),$(if $(MADE_IN),$(CURDIR)))
$(warning $(VENV) was made in $(MADE_IN); make runs the code of this folder, but $(VENV)/bin/senet-ablate runs that. \
To have a .venv of this folder: make clean install)
endif

# A stamp newer than its inputs means installed: a later call costs a file comparison. It says where.
$(VENV)/installed: pyproject.toml constraints.txt
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (torch is large: some minutes)"
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@pwd -P > $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@pwd -P > $@

$(VENV)/installed-cluster: $(VENV)/installed-dev
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,slurm,ray]'
	@pwd -P > $@

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
ablate-attention: ## Ours: ECA, CBAM, BAM, GE, GC, SRM, SimAM, SK, … beside SE, each where its paper puts it

$(TABLES:%=ablate-%): ablate-%: $(VENV)/installed
	@$(CLI) run $* $(RUN) --report

init: $(VENV)/installed ## Examine a folder of images and write a protocol for it: DATA=photos
	@$(CLI) init $(call option,data,DATA) $(ARGS)

plan: $(VENV)/installed ## Show what would be trained, how long it takes and what it can decide
	@$(CLI) plan $(CHOICE) $(call option,data,DATA) $(call option,seeds,SEEDS) $(ARGS)

status: $(VENV)/installed ## Show which runs are finished, unfinished or failed
	@$(CLI) status $(CHOICE) $(call option,data,DATA) $(call option,seeds,SEEDS) $(ARGS)

count: $(VENV)/installed ## Count parameters and multiply-adds, beside the paper's; no training, no data
	@$(CLI) count $(call option,protocol,PROTOCOL) $(ARGS)

audit: $(VENV)/installed ## Check that variants differ only as declared
	@$(CLI) audit $(call option,protocol,PROTOCOL) $(call option,study,STUDY) $(call option,data,DATA) $(ARGS)

calibrate: $(VENV)/installed ## Check error rates and intervals on simulated studies with known effects (minutes)
	@$(CLI) calibrate $(ARGS)

excitation: $(VENV)/installed ## Plot the gates of trained networks: ARGS='gate:sigmoid gate:tanh'
	@$(CLI) excitation $(LOOK)

prune: $(VENV)/installed ## Show the error with the SE blocks of each stage switched off: ARGS='ratio:r16'
	@$(CLI) prune $(LOOK)

bench: $(VENV)/installed ## Measure speed relative to a usual script and a bare loop (with DATA= also on images)
	@$(PY) benchmarks/bench.py $(call option,data,DATA) $(ARGS)

chaos: $(VENV)/installed ## Inject 250 faults: killed processes, a full disk, damaged files (a quarter of an hour)
	@$(PY) tests/stress/chaos.py $(ARGS)

report: $(VENV)/installed ## Write the report again
	@$(CLI) report $(CHOICE) $(call option,data,DATA) $(ARGS)

docs: $(VENV)/installed ## Write the generated parts of README.md and docs/ again
	@$(PY) docs/generate.py

bad-inputs: $(VENV)/installed-dev ## Try 11,000 generated bad inputs on every option and file (minutes)
	@$(PY) tests/stress/bad_inputs.py $(ARGS)

check: lint test ## Run lint, format, types and tests

lint: $(VENV)/installed-dev ## Check lint, format, types and the order of imports
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

test: $(VENV)/installed-dev ## Run the tests (minutes)
	$(PY) -m pytest

test-all: $(VENV)/installed-dev ## Run all tests, the slow ones included
	$(PY) -m pytest -m 'not browser and not cluster'

test-browser: $(VENV)/installed-dev ## Test the report's page in Chromium, which must be installed
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[browser]'
	$(PY) -m pytest -m browser

test-cluster: $(VENV)/installed-cluster ## Test studies on real Ray nodes and Slurm daemons (apt: slurm-wlm, munge)
	$(PY) -m pytest -m cluster

latency: $(VENV)/installed ## Measure the time of each variant on this machine
	@$(CLI) latency $(CHOICE) $(if $(DEVICE),--device '$(DEVICE)') $(ARGS)

clean: ## Remove .venv and caches; keep results and reports
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
