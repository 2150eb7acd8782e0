# `make help` lists what there is.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# dvc.yaml's commands say `python`: this environment's comes first.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1
# Threads that wait for each other sleep instead of spinning: on a machine that does something else too, a training that
# spins is several times slower (2 cores, one more process: 30 s an epoch instead of 150).
export OMP_WAIT_POLICY ?= PASSIVE

# The stamp's name holds what the environment was made from, so that a second run does no set-up again.
STAMP := $(VENV)/.made-$(shell cat pyproject.toml constraints.txt | sha256sum | cut -c1-12)

# Where CI is set, pytest tells every difference in full, and works for an hour on two files that differ.
PYTEST := env -u CI -u BUILD_NUMBER python -m pytest

SET ?=
SET_FLAGS := $(foreach pair,$(SET),--set-param '$(pair)')

.PHONY: help setup repro classify beside compare pr-report flow server worker publish rknn test test-long bench-data bench-metrics bench-flow bench-quantize bench-storage check format clean

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP) ## Make .venv (other targets do it by themselves)

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found; install Python 3.11 (apt-get install python3.11 python3.11-venv), or say PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "error: $(PYTHON) is $$($(PYTHON) -V), expected Python 3.11; say PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "error: $(PYTHON) has no venv; apt-get install python3.11-venv" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing about 320 packages (7.5 GB with torch's CUDA libraries): some minutes, once."
	$(BIN)/python -m pip install -q --progress-bar off --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@# ultralytics asks for opencv-python, whose module needs libGL, which servers and containers lack. The headless
	@# build puts the same module in the same place without it, so it is laid on top.
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --force-reinstall "$$(grep '^opencv-python-headless==' constraints.txt)"
	rm -f $(VENV)/.made-*
	touch $@

repro: setup ## The whole line: labelled images in, reports/report/report.md out (SET="a.b=1 c.d=2": with other params)
	python -m pipelines.check_params $(foreach pair,$(SET),--set '$(pair)')
	$(if $(SET),dvc exp run $(SET_FLAGS) || { echo "params.yaml holds the values of SET now; git restore params.yaml takes them back" >&2; exit 1; },dvc repro)
	@echo "The report: reports/report/report.md"

classify: setup ## The same line for image classification, beside detection: reports/classify/report/report.md (SET as above)
	python -m pipelines.beside classify --set task=classify $(foreach pair,$(SET),--set '$(pair)')

beside: setup ## The line with other params, beside this one's results: NAME=small SET="a.b=1", into reports/small
	$(if $(NAME),,$(error say NAME=..., such as make beside NAME=small SET="train.detect.image_size=96"))
	python -m pipelines.beside '$(NAME)' $(foreach pair,$(SET),--set '$(pair)')

compare: setup ## The scores here against another commit's, with intervals (REV=main; COMPARE="--markdown FILE --json FILE")
	python -m pipelines.compare --rev '$(or $(REV),main)' $(COMPARE)

pr-report: setup ## What this change does to the model, and whether it may be merged: BASE=main, into pr-report/ (OUT=FOLDER HEAD=REV)
	python -m pipelines.pr_report --base '$(or $(BASE),main)' $(if $(HEAD),--head '$(HEAD)') --out '$(or $(OUT),pr-report)'

flow: setup ## The same graph as a Prefect flow, with no server to start by hand (params.yaml as it is)
	$(if $(SET),$(error make flow runs params.yaml as it is; make repro SET=... changes it))
	python -m pipelines.check_params
	python -m pipelines.flow

server: setup ## Prefect server, schedules, a worker and the watch for new data (HOST=0.0.0.0 PORT=4200 EVERY=60)
	python -m pipelines.serve --host '$(or $(HOST),127.0.0.1)' --port '$(or $(PORT),4200)' --every '$(or $(EVERY),60)'

worker: setup ## Run stages of a pool on this machine, for the server at PREFECT_API_URL: POOL=gpu
	python -m pipelines.worker '$(or $(POOL),$(error say POOL=gpu, as meta in dvc.yaml has it))'

publish: setup ## Publish this commit's recommended artifacts: VERSION=v1.2.3 (PUBLISH="--push-tag --target NAME")
	python -m pipelines.publish '$(or $(VERSION),$(error say VERSION=v1.2.3))' $(PUBLISH)

rknn: setup ## The environment of Rockchip's converter, for targets with the backend rknn (640 MB in .cache/rknn)
	python -m plumbline.backends.rknn.toolchain rknn

test: setup ## All tests but the long ones, and `make check`
	$(MAKE) --no-print-directory check
	$(PYTEST) --hypothesis-profile=repeatable -m "not long"

test-long: setup ## The tests that take minutes each, and those by properties with new examples
	$(PYTEST) -m "long or hypothesis"

bench-data: setup ## Speed and memory of the scan and of a million rows, beside other tools (BENCH="--quick": a try)
	python benchmarks/data_scan.py $(BENCH)

bench-metrics: setup ## mAP and its bootstrap beside pycocotools and faster-coco-eval (BENCH="--quick": a try)
	python benchmarks/metrics.py $(BENCH)

bench-flow: setup ## The flow's wall time beside dvc repro's, and of a run with nothing to do (10 minutes, a quiet machine)
	python benchmarks/flow.py $(BENCH)

bench-quantize: setup ## int8 on every backend on real photographs, beside ultralytics' own export (needs BCCD; an hour, once)
	python benchmarks/quantize.py $(BENCH)

bench-storage: setup ## Loose images beside tar shards under DVC and S3 (needs 10 GB; an hour or more; BENCH="--quick": a try)
	python benchmarks/storage.py $(BENCH)

check: setup ## Lint, types, and the import contracts of the three rooms
	ruff check .
	ruff format --check .
	mypy
	lint-imports

format: setup ## Let ruff lay out the code
	ruff check --fix .
	ruff format .

clean: ## Remove everything that the line has made here; environments and DVC's cache stay
	rm -rf data/dataset data/.unpacked data/validated data/splits.parquet models reports/findings.* reports/data_docs reports/tensorboard
	@# Of stages that were killed; of data the first level alone, as below it is the user's.
	find data/.[!.]*.???????? -maxdepth 0 -type d -exec rm -rf {} + 2>/dev/null || true
	find reports -depth -type d -name '.*.????????' -exec rm -rf {} +
	test ! -d .cache || find .cache -mindepth 1 -maxdepth 1 ! -name rknn ! -name server -exec rm -rf {} +
