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
TABLES := ratio squeeze gate stage integration inner nosqueeze controls pruning attention

.DEFAULT_GOAL := help
.PHONY: help install ablate $(TABLES:%=ablate-%) plan status count audit calibrate excitation prune latency bench chaos \
        bad-inputs report readme check lint test test-all test-browser test-cluster clean

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

install: $(VENV)/installed ## Make .venv and install (every other target does it when needed)

ablate: $(VENV)/installed ## Train and report all seven tables, each network once
	@$(CLI) run $(RUN) --report

ablate-ratio: ## Table 10: reduction ratio r = 2, 4, 8, 16, 32 and no SE
ablate-squeeze: ## Table 11: max or average pooling
ablate-gate: ## Table 12: ReLU, tanh or sigmoid
ablate-stage: ## Table 13: SE blocks in one stage or in all
ablate-integration: ## Table 14: standard, pre, post, identity
ablate-inner: ## Table 15: after the 3x3 convolution
ablate-nosqueeze: ## Table 16: without the squeeze
ablate-controls: ## Controls: other seeds, constant, random and no gate
ablate-pruning: ## Ours: SE in stages 2 to 4, none in the last
ablate-attention: ## Ours: the convolution of ECA instead of the two layers of SE

$(TABLES:%=ablate-%): ablate-%: $(VENV)/installed
	@$(CLI) run $* $(RUN) --report

plan: $(VENV)/installed ## What would be trained, how long it takes and what it can decide
	@$(CLI) plan $(CHOICE) $(if $(SEEDS),--seeds '$(SEEDS)') $(ARGS)

status: $(VENV)/installed ## Which runs are finished, unfinished or failed
	@$(CLI) status $(CHOICE) $(if $(SEEDS),--seeds '$(SEEDS)') $(ARGS)

count: $(VENV)/installed ## Parameters and multiply-adds beside the paper's; no training, no data
	@$(CLI) count $(if $(PROTOCOL),--protocol '$(PROTOCOL)') $(ARGS)

audit: $(VENV)/installed ## What differs between each arm and its reference; fails on what no row declares
	@$(CLI) audit $(if $(PROTOCOL),--protocol '$(PROTOCOL)') $(if $(STUDY),--study '$(STUDY)') $(ARGS)

calibrate: $(VENV)/installed ## Is the printed confidence deserved? Judge simulated studies (minutes)
	@$(CLI) calibrate $(ARGS)

excitation: $(VENV)/installed ## What the SE blocks of a trained network do: ARGS='gate:sigmoid gate:tanh'
	@$(CLI) excitation $(LOOK)

prune: $(VENV)/installed ## Its error with the SE blocks of each stage switched off: ARGS='ratio:r16'
	@$(CLI) prune $(LOOK)

bench: $(VENV)/installed ## How fast the suite is, as ratios to the usual script and to a bare loop (DATA=: images, too)
	@$(VENV)/bin/python benchmarks/bench.py $(if $(DATA),--data '$(DATA)') $(ARGS)

chaos: $(VENV)/installed ## Does a study survive killed processes, a full disk, spoilt files? 200 faults, a quarter of an hour
	@$(VENV)/bin/python tests/stress/chaos.py $(ARGS)

report: $(VENV)/installed ## Write tables and plots again from the records
	@$(CLI) report $(CHOICE) $(ARGS)

readme: $(VENV)/installed ## Write the generated parts of README.md from the committed study
	@$(CLI) report --study cifar10-lite --fill README.md

bad-inputs: $(VENV)/installed-dev ## Try 11,000 generated bad inputs wherever one types or a file is read (minutes)
	@$(VENV)/bin/python tests/stress/bad_inputs.py $(ARGS)

check: lint test ## Lint, format, types and tests

lint: $(VENV)/installed-dev ## Lint, format, types and the order of imports
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

test: $(VENV)/installed-dev ## The tests (minutes)
	$(VENV)/bin/python -m pytest

test-all: $(VENV)/installed-dev ## The tests with the long ones
	$(VENV)/bin/python -m pytest -m 'not browser and not cluster'

test-browser: $(VENV)/installed-dev ## The report's page in Chromium, which must be installed
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[browser]'
	$(VENV)/bin/python -m pytest -m browser

test-cluster: $(VENV)/installed-cluster ## Studies through real engines: Ray's nodes, Slurm's daemons (apt: slurm-wlm, munge)
	$(VENV)/bin/python -m pytest -m cluster

latency: $(VENV)/installed ## How long each network takes on this machine; reports then show it
	@$(CLI) latency $(CHOICE) $(if $(DEVICE),--device '$(DEVICE)') $(ARGS)

clean: ## Remove .venv and caches; results and reports stay
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
